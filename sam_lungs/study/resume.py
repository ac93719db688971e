"""Which run a results folder holds, and whether another is the same and can go on from there."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from sam_lungs.study.journal import Journal, read_journal
from sam_lungs.study.results import JOURNAL_NAME, RUN_NAME, changed_file, read_run
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.provenance import difference

# The modules that decide the numbers.
CODE = (
    *("data/voxels", "data/volumes", "data/geometry", "data/windowing", "prompts/rules"),
    *("segmenters/checkpoints", "segmenters/sam_compact", "segmenters/sam_encoder"),
    *("segmenters/sam", "segmenters/embeddings"),
    *("study/case", "study/pipeline", "study/metrics", "study/run", "study/recorder"),
    "study/results",
)
OPTIONS = (
    *("model", "precision", "window", "tolerance_mm", "empty_slices"),
    *("save_masks", "debug", "strict_geometry", "embeddings_folder", "embeddings_precision"),
)
REMEDY = "add --overwrite to replace it, or choose another --output_folder"
NOT_PACKAGES = ("python", "system")


class AnotherRun(InputError):
    """A results folder is not this run's: another's is there, or at work."""


@contextmanager
def unfinished_run(folder: Path, run: dict, overwrite: bool) -> Iterator[Journal | None]:
    """Yield the journal of a run, which holds all that it has done in this folder; `None` when it
    is finished.

    run: as `study` describes it. overwrite: begin anew, whatever is there.
    The journal's first record is `{"run": run}`, and at each start follows a `{"session": ...}`.

    Raises `AnotherRun` as `is_finished` does, and when another process is at work here;
    `InputError` when the folder cannot be written.
    """
    path = folder / JOURNAL_NAME
    try:
        journal = Journal(path)
    except BlockingIOError:
        raise AnotherRun(f"{folder}: {_who_works_on(path)}; let it finish") from None
    with journal:
        if overwrite:
            journal.clear()
        elif is_finished(folder, run):
            yield None
            return
        if not journal.records:
            journal.append({"run": run})
        journal.append({"session": _this_session()})
        yield journal


def is_finished(folder: Path, run: dict) -> bool:
    """Tell whether a results folder holds all of a run.

    Raises `AnotherRun` when it holds another run, or files that were changed since.
    """
    begun = read_journal(folder / JOURNAL_NAME)
    try:
        there = begun[0]["run"] if begun else read_run(folder)
        if there is None:
            return False
        before, now = decisive(there), decisive(run)
    except (InputError, AttributeError, TypeError, KeyError) as error:
        raise AnotherRun(
            f"{folder}: its {RUN_NAME} is not the record of a run; {REMEDY}"
        ) from error
    if before != now:
        raise AnotherRun(f"{folder}: holds another run ({difference(before, now)}); {REMEDY}")
    if begun:
        return False
    if changed := changed_file(folder, there):
        raise AnotherRun(f"{changed}: is not what its run wrote; {REMEDY}")
    return True


def recorded_slices(folder: Path) -> set[int]:
    """Return the slices that an unfinished run has done."""
    records = read_journal(folder / JOURNAL_NAME)
    return {
        record[kind]["slice"]
        for record in records
        for kind in ("slice", "empty_slice")
        if kind in record
    }


def decisive(run: dict) -> dict[str, object]:
    """Return all that decides the numbers and files of a run, by name."""
    options, versions = run.get("options", {}), run.get("versions", {})
    return {
        **{f"--{name}": options.get(name) for name in OPTIONS},
        "--metrics": sorted(options.get("metrics", [])),
        **{f"prompts' {name}": rule for name, rule in run.get("protocol", {}).items()},
        **{
            role if key == "sha256" else f"{role} {key}": value
            for role in ("image", "masks", "checkpoint")
            for key, value in run.get(role, {}).items()
            if key != "file"
        },
        "device": run.get("device"),
        "threads": run.get("threads"),
        **{name: version for name, version in versions.items() if name not in NOT_PACKAGES},
        "code": run.get("code_sha256"),
    }


def _this_session() -> dict:
    return {
        "process": os.getpid(),
        "host": platform.node(),
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def _who_works_on(path: Path) -> str:
    sessions = [record["session"] for record in read_journal(path) if "session" in record]
    if not sessions:
        return "another process has just begun to work on it"
    session = sessions[-1]
    return (
        f"process {session['process']} on {session['host']} has been working on it since"
        f" {session['started']}"
    )
