"""Progress on standard error: a bar on a terminal, otherwise a line once a minute."""

import sys
import time
from types import TracebackType

from tqdm import tqdm

SECONDS_BETWEEN_LINES = 60


class Progress:
    """Progress of work with a known number of steps; a context manager.

    Without a terminal it prints a line at most once a minute, and one at the end.
    """

    def __init__(self, name: str, total: int, done: int = 0, unit: str = "slice") -> None:
        """done: steps that an earlier run completed. unit: name of one step, singular."""
        self._name, self._total, self._unit = name, total, unit
        self._done = self._done_before = done
        self._remark = ""
        self._bar = None
        if sys.stderr.isatty():
            self._bar = tqdm(desc=name, total=total, initial=done, unit=unit)
        self._started = self._printed = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, error: object, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.close()
        elif self._done > self._done_before:
            self._print()

    def update(self, steps: int = 1, remark: str = "") -> None:
        """Count completed steps; remark: shown after the count, such as a running mean."""
        self._done += steps
        self._remark = remark
        if self._bar:
            self._bar.set_postfix_str(remark, refresh=False)
            self._bar.update(steps)
        elif time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES:
            self._print()

    def _print(self) -> None:
        self._printed = time.monotonic()
        seconds_per_step = (self._printed - self._started) / (self._done - self._done_before)
        parts = [
            f"{self._done} of {self._total} {self._unit}s",
            f"{seconds_per_step * (self._total - self._done):.0f} s left",
        ]
        if self._remark:
            parts.append(self._remark)
        print(f"{self._name}: {', '.join(parts)}", file=sys.stderr)
