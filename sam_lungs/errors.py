"""Bad input: a person's mistake or a broken file, told in one line and never as a stack trace."""

import sys
from collections.abc import Callable


class InputError(Exception):
    """What is wrong with which input and what to do about it, in one line."""


def report(error: InputError) -> None:
    """Print the error's one line on standard error."""
    print(f"error: {error}", file=sys.stderr)


def run_script(main: Callable[[], int | None]) -> None:
    """Run a script's `main` and leave with its exit status, 1 on an `InputError`, 130 on Ctrl-C."""
    try:
        sys.exit(main())
    except InputError as error:
        report(error)
        sys.exit(1)
    except KeyboardInterrupt:
        sys.exit(130)
