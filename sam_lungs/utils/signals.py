"""SIGINT (Ctrl-C) and SIGTERM: stop at a good moment; a second one ends the process at once."""

import os
import signal
from types import FrameType

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopped(BaseException):
    """A signal stopped the work; not an `Exception`, so that nothing takes it for a failure."""

    def __init__(self, number: int, said: str = "") -> None:
        """number: of the signal; said: what to tell the user about it, in one line."""
        super().__init__(said)
        self.number = number

    @property
    def exit_status(self) -> int:
        """What a shell expects of a program that this signal ended: 130 or 143."""
        return 128 + self.number


def stop_at_once() -> None:
    """From now on raise `Stopped` where a signal meets the main thread.

    A signal that the program was started to ignore, as in the background of a script, stays so.
    """
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, _raise_stopped)


def _raise_stopped(number: int, _frame: FrameType | None) -> None:
    _end_at_the_next()
    raise Stopped(number)


def _end_at_the_next() -> None:
    for number in SIGNALS:
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)


class Stop:
    """Inside this context the first signal only asks to stop; work asks back, and ends well.

    Truth is whether to stop.
    """

    def __init__(self) -> None:
        self.number: int | None = None

    def __bool__(self) -> bool:
        return self.number is not None

    def __enter__(self) -> "Stop":
        self._before = {number: signal.getsignal(number) for number in SIGNALS}
        for number, handler in self._before.items():
            if handler != signal.SIG_IGN:
                signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        if not self:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _ask(self, number: int, _frame: FrameType | None) -> None:
        _end_at_the_next()
        self.number = number
        # Not print, in whose middle this may be.
        os.write(2, b"\nstopping after what is in hand; once more ends it at once\n")
