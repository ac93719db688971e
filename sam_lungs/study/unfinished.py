"""The finished slices of an unfinished run, from which a killed run resumes.

The folder `unfinished/` in a results folder holds `slices.jsonl`: the run's record, then one line
of JSON per slice; and for `--save_masks` a PNG per slice. The log is synced to the disk at most
every ten seconds: a kill loses only the current slices, a power failure those of ten seconds. An
incomplete line or mask is ignored.
"""

import json
import os
import shutil
import time
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from PIL import Image

from sam_lungs.study.layout import RUN_NAME, UNFINISHED_FOLDER
from sam_lungs.study.run_record import RunRecord
from sam_lungs.utils import provenance
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import PARTIAL, sync

LOG_NAME = "slices.jsonl"
MASKS_FOLDER = "masks"
# A busy disk takes several milliseconds for a sync, and each protocol has a log.
SECONDS_BETWEEN_SYNCS = 10
REMEDY = "add --overwrite to replace it, or choose another --output_folder"


class RunMismatchError(InputError):
    """A results folder holds the results of another run, or changed ones."""


def finished_record(folder: Path, record: RunRecord, overwrite: bool = False) -> RunRecord | None:
    """Return the record of the finished run in a results folder; None when it is not finished.

    record: of the requested run. overwrite: the results may be replaced; only those of the same
        code and environment count as finished.

    Raises `RunMismatchError` when the folder holds another run, or files that have changed since,
    and may not be replaced.
    """
    try:
        there = _finished_record(folder, record)
    except RunMismatchError:
        if overwrite:
            return None
        raise
    if there and overwrite and there.slices_made_by != record.slices_made_by:
        return None
    return there


def kept_slices(folder: Path, record: RunRecord) -> set[int]:
    """Return the slices of the unfinished run in a results folder that `record` would keep."""
    lines, _ = _read_log(folder)
    there = _begun_record(lines, record)
    is_kept = there and there.slices_made_by == record.slices_made_by
    return {line["index"] for line in lines[1:]} if is_kept else set()


class UnfinishedRun:
    """The log of a run in a results folder, open for appending; a context manager.

    record: of the run. lines: a dictionary with the key `index` for each finished slice.
    discarded_slices: number of slices that were not kept.
    """

    def __init__(self, folder: Path, record: RunRecord) -> None:
        """Resume the run in a results folder, or start it. The caller holds the folder's lock.

        The log of another run is discarded: `finished_record` has checked that it may be.

        Raises `InputError` when it cannot be written.
        """
        self.folder = folder / UNFINISHED_FOLDER
        self._path = self.folder / LOG_NAME
        self._synced = time.monotonic()
        self.discarded_slices = 0
        lines, size = _read_log(folder)
        there = _begun_record(lines, record)
        if there and there.slices_made_by == record.slices_made_by:
            names = ("patient", "subset", "dataset", "findings")
            about_files = {name: getattr(record, name) for name in names}
            record = replace(there, **about_files)
        else:
            self.discarded_slices = len(lines[1:]) if there else 0
            lines, size = [], 0
        self.record, self.lines = record, lines[1:]
        try:
            if not lines:
                shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True, exist_ok=True)
            self._file = open(self._path, "ab", buffering=0)  # noqa: SIM115  closed by __exit__
            # Also without lines, because the old log may be there still.
            self._file.truncate(size)
            if not lines:
                self._write(asdict(record))
        except OSError as error:
            raise self._cannot_be_written(error) from error

    def __enter__(self) -> "UnfinishedRun":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def append(self, line: dict, mask: np.ndarray | None = None) -> None:
        """Append the line of a slice, with the key `index`, and its mask (rows, columns) bool.

        Raises `InputError` when it cannot be written; earlier lines stay valid.
        """
        try:
            if mask is not None:
                path = self._mask_path(line["index"])
                path.parent.mkdir(exist_ok=True)
                Image.fromarray(mask).save(path)
            self._write(line)
            if time.monotonic() - self._synced > SECONDS_BETWEEN_SYNCS:
                sync(self._path)
                self._synced = time.monotonic()
        except OSError as error:
            raise self._cannot_be_written(error) from error
        self.lines.append(line)

    def read_mask(self, index: int) -> np.ndarray | None:
        """Return the mask of a slice, (rows, columns) bool; None when it is missing or damaged."""
        with suppress(OSError, SyntaxError), Image.open(self._mask_path(index)) as image:
            return np.array(image)
        return None

    def discard(self) -> None:
        """Remove the log and the masks, when all results are written.

        Raises `InputError` when they cannot be removed.
        """
        try:
            # Renamed first, because a half-removed folder would look like an unfinished run.
            discarded = self.folder.with_name(f"{PARTIAL}{self.folder.name}")
            self.folder.rename(discarded)
            shutil.rmtree(discarded)
        except OSError as error:
            raise InputError(
                f"{self.folder}: cannot be removed ({error.strerror}); check its folder"
            ) from error

    def _write(self, content: dict) -> None:
        data = json.dumps(content).encode() + b"\n"
        while data:
            data = data[os.write(self._file.fileno(), data) :]

    def _mask_path(self, index: int) -> Path:
        return self.folder / MASKS_FOLDER / f"slice_{index}.png"

    def _cannot_be_written(self, error: OSError) -> InputError:
        return InputError(
            f"{self.folder}: cannot be written ({error.strerror or error}); finished slices are"
            " kept; free some space and run the same command again, or choose another folder"
        )


def _finished_record(folder: Path, record: RunRecord) -> RunRecord | None:
    begun, _ = _read_log(folder)
    try:
        there = RunRecord.from_json(begun[0]) if begun else RunRecord.read(folder)
    except (InputError, ValueError) as error:
        raise RunMismatchError(
            f"{folder}: its {RUN_NAME} is not a run record of this version; {REMEDY}"
        ) from error
    if there is None:
        return None
    if there.fingerprint != record.fingerprint:
        difference = provenance.difference(there.fingerprint, record.fingerprint)
        raise RunMismatchError(f"{folder}: holds another run ({difference}); {REMEDY}")
    if begun:
        return None
    if changed := there.changed_file(folder):
        raise RunMismatchError(f"{changed}: has changed since it was written; {REMEDY}")
    return there


def _begun_record(lines: list[dict], record: RunRecord) -> RunRecord | None:
    """Return the record at the start of a log; None unless it has the fingerprint of `record`."""
    try:
        there = RunRecord.from_json(lines[0]) if lines else None
    except ValueError:  # of another version
        return None
    return there if there and there.fingerprint == record.fingerprint else None


def _read_log(folder: Path) -> tuple[list[dict], int]:
    """Return the complete lines of the log in a results folder, and their size in bytes."""
    path = folder / UNFINISHED_FOLDER / LOG_NAME
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], 0
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    lines, size = [], 0
    for line in content.splitlines(keepends=True):
        try:
            parsed = json.loads(line)
        except ValueError:
            break
        # The first line is the record, each of the others a slice.
        is_valid = isinstance(parsed, dict) and (not lines or "index" in parsed)
        if not (is_valid and line.endswith(b"\n")):
            break
        lines.append(parsed)
        size += len(line)
    return lines, size
