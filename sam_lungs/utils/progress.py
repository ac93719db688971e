"""Progress on standard error: bars on a terminal, otherwise a line at most once a minute."""

import os
import sys
import time
from datetime import timedelta
from types import TracebackType

from tqdm import tqdm

from sam_lungs.utils.text import count

SECONDS_BETWEEN_LINES = 60
# Of a terminal that says it has no columns and rows, on which tqdm would show nothing.
SIZE = {"ncols": 80, "nrows": 24}


class StudyProgress:
    """How many volumes of a study are done, and the time that is left.

    It is shown beside the progress of a volume, which counts as a part of one.
    """

    def __init__(self, total: int) -> None:
        """total: number of volumes; those of several models count several times."""
        self.total = total
        self.printed = self._started = time.monotonic()
        self._done = self._skipped = 0
        self._part = self._part_before = 0.0

    def begin_part(self, done: float) -> None:
        """Begin a volume, of which an earlier run has done a part, 0 to 1."""
        self._part = done
        self._part_before += done

    def update_part(self, done: float) -> None:
        """Set how much of the volume in hand is done, 0 to 1."""
        self._part = done

    def update(self) -> None:
        """Count the volume in hand."""
        self._done += 1
        self._part = 0

    def skip(self, number: int = 1) -> None:
        """Count volumes that are not processed, such as those that were finished before."""
        self._done += number
        self._skipped += number

    def close(self) -> None:
        """Print how many volumes were processed, if any were."""
        processed = self._done - self._skipped
        if self.total > 1 and processed:
            duration = timedelta(seconds=round(time.monotonic() - self._started))
            skipped = f", {self._skipped} skipped" if self._skipped else ""
            print(f"{count(processed, 'volume')} processed in {duration}{skipped}", file=sys.stderr)

    @property
    def volumes(self) -> float:
        """How many volumes are done, with the part of the one in hand."""
        return self._done + self._part

    def __str__(self) -> str:
        number = min(self._done + 1, self.total)
        text = f"volume {number} of {self.total}"
        worked = self.volumes - self._skipped - self._part_before
        if worked <= 0:
            return text
        seconds = (time.monotonic() - self._started) / worked * (self.total - self.volumes)
        return f"{text}, {timedelta(seconds=round(seconds))} left"


class Progress:
    """Progress of work with a known number of steps; a context manager.

    Without a terminal it prints a line at most once a minute, and one at the end; as a part of a
    study of several volumes without the one at the end.
    """

    def __init__(
        self,
        name: str,
        total: int,
        done: int = 0,
        unit: str = "slice",
        study: StudyProgress | None = None,
    ) -> None:
        """done: steps that an earlier run completed. unit: name of one step, singular.

        study: the study of which this is a volume.
        """
        self._name, self._total, self._unit = name, total, unit
        self._done = self._done_before = done
        self._remark = ""
        self._study = study if study and study.total > 1 else None
        self._bar = self._study_bar = None
        if self._study:
            self._study.begin_part(done / total)
        if sys.stderr.isatty():
            size = {} if _has_size() else SIZE
            self._bar = tqdm(desc=name, total=total, initial=done, unit=unit, **size)
            if self._study:
                self._study_bar = tqdm(
                    desc=str(self._study),
                    total=self._study.total,
                    initial=self._study.volumes,
                    bar_format="{desc} {percentage:3.0f}%|{bar}|",
                    leave=False,
                    **size,
                )
        self._started = time.monotonic()
        self._printed = self._study.printed if self._study else self._started

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, kind: type | None, error: object, trace: TracebackType | None) -> None:
        if self._study_bar:
            # First, because the other bar stays on the screen.
            self._study_bar.close()
        if self._bar:
            self._bar.close()
        elif self._done > self._done_before and (kind or not self._study):
            self._print()

    def update(self, steps: int = 1, remark: str = "") -> None:
        """Count completed steps; remark: shown after the count, such as a running mean."""
        self._done += steps
        self._remark = remark
        if self._study:
            self._study.update_part(self._done / self._total)
        if self._study_bar:
            self._study_bar.set_description_str(str(self._study), refresh=False)
            self._study_bar.update(self._study.volumes - self._study_bar.n)
        if self._bar:
            self._bar.set_postfix_str(remark, refresh=False)
            self._bar.update(steps)
        elif time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES:
            self._print()

    def _print(self) -> None:
        self._printed = time.monotonic()
        seconds_per_step = (self._printed - self._started) / (self._done - self._done_before)
        parts = [
            f"{self._done} of {count(self._total, self._unit)}",
            f"{seconds_per_step * (self._total - self._done):.0f} s left",
        ]
        if self._remark:
            parts.append(self._remark)
        if self._study:
            parts.append(str(self._study))
            self._study.printed = self._printed
        print(f"{self._name}: {', '.join(parts)}", file=sys.stderr)


def _has_size() -> bool:
    """Return whether the terminal knows its size."""
    try:
        return min(os.get_terminal_size(sys.stderr.fileno())) > 0
    except OSError:
        return False
