"""Standard output and standard error whose writing never fails: printing never stops the work."""

import io
import os
import select
import sys
from contextlib import suppress


class _Stream(io.FileIO):
    """A stream that drops what cannot be written.

    error: the first error, but not that the reader has ended, as with `| head`.
    """

    error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            while (written := super().write(data)) is None:  # full, and set not to block
                select.select([], [self], [])
            return written
        except BrokenPipeError:
            pass
        except OSError as error:
            self.error = self.error or error
        return len(data)


def protect_output() -> None:
    """Replace the streams of this process by such that never fail.

    What a stream cannot encode, such as the bytes of a file name that are not UTF-8, is written
    with backslashes. A closed stream is opened again, without output; otherwise the next file that
    is opened would take its place, and receive what libraries print.
    """
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number, which is this one.
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        stream = getattr(sys, name)
        # A test captures the output with a stream of its own. A closed stream is None.
        if stream is not getattr(sys, f"__{name}__"):
            continue
        with suppress(OSError, AttributeError):
            stream.flush()
        replacement = io.TextIOWrapper(
            io.BufferedWriter(_Stream(descriptor, "w", closefd=False)),
            encoding=stream.encoding if stream else "utf-8",
            errors="backslashreplace",
            line_buffering=stream is not None and (stream.line_buffering or stream.write_through),
        )
        setattr(sys, name, replacement)


def lost_output() -> OSError | None:
    """Flush standard output; return the error if some of it could not be written."""
    sys.stdout.flush()
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw.error if isinstance(raw, _Stream) else None
