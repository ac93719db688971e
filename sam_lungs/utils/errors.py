"""What ends a script early: bad input, too little memory, a signal; each told in one line."""

import sys
from collections.abc import Callable

from sam_lungs.utils.signals import Stopped, stop_at_once

# How PyTorch's allocator, Python's threads, the system and its loader of libraries say it.
OUT_OF_MEMORY = (
    *("can't allocate memory", "not enough memory", "can't start new thread"),
    *("cannot allocate memory", "failed to map segment"),
)


class InputError(Exception):
    """What is wrong with which input and what to do about it, in one line."""


def report(error: InputError) -> None:
    """Print the error's one line on standard error."""
    print(f"error: {error}", file=sys.stderr)


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory is short; PyTorch has no type for that on a CPU."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError | OSError | ImportError)
        and any(words in str(error).lower() for words in OUT_OF_MEMORY)
    )


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and leave with its exit status.

    That is 1 on an `InputError` and when memory is short, 130 on Ctrl-C, 143 on SIGTERM.
    """
    try:
        stop_at_once()
        sys.exit(main())
    except InputError as error:
        report(error)
        sys.exit(1)
    except Stopped as stopped:
        if str(stopped):
            print(f"stopped: {stopped}", file=sys.stderr)
        sys.exit(stopped.exit_status)
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        report(InputError("too little memory; close other programs, or use a larger machine"))
        sys.exit(1)
