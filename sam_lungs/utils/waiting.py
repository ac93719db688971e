"""Say on standard error what is going on, when it takes long."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

SECONDS = 2


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Print `what` once if the work in the context takes more than `SECONDS`."""
    # The stream of now: the work may redirect it.
    timer = Timer(SECONDS, print, [f"{what} ..."], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
