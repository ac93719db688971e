"""How far work is: a bar on a terminal, now and then a line anywhere else."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 60


class Progress:
    """Work of a known number of steps, some of them perhaps done before; told on standard error.

    Use as a context. A line is written at the end, and before it once a minute.
    """

    def __init__(self, name: str, total: int, done: int = 0, unit: str = "slice") -> None:
        self._name, self._total, self._unit = name, total, unit
        self._done = self._done_before = done
        self._remark = ""
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(desc=name, total=total, initial=done, unit=unit)
        self._started = self._told = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, error: object, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.close()
        elif self._done > self._done_before:
            self._tell()

    def update(self, steps: int = 1, remark: str = "") -> None:
        """Count steps that were done; remark: what else to tell, such as a mean so far."""
        self._done += steps
        self._remark = remark
        if self._bar:
            self._bar.set_postfix_str(remark, refresh=False)
            self._bar.update(steps)
        elif time.monotonic() - self._told >= SECONDS_BETWEEN_LINES:
            self._tell()

    def _tell(self) -> None:
        self._told = time.monotonic()
        each = (self._told - self._started) / (self._done - self._done_before)
        left = f"{each * (self._total - self._done):.0f} s left"
        said = [f"{self._done} of {self._total} {self._unit}s", left]
        print(f"{self._name}: {', '.join([*said, self._remark]).rstrip(', ')}", file=sys.stderr)
