"""The error for bad input, and a check for too little memory."""

import sys

# From messages of PyTorch's allocator, Python's threads, the operating system and its loader.
OUT_OF_MEMORY = (
    *("can't allocate memory", "not enough memory", "can't start new thread"),
    *("cannot allocate memory", "failed to map segment"),
)


class InputError(Exception):
    """Bad input. The message is one line: the file or option, what is wrong, and a remedy."""


def report(error: InputError) -> None:
    """Print the error on standard error, in one line."""
    message = str(error).replace("\n", "\\n")  # of a file name
    print(f"error: {message}", file=sys.stderr)


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an error means too little memory; on a CPU, PyTorch has no type for it."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError | ImportError)
        and any(words in str(error).lower() for words in OUT_OF_MEMORY)
    )
