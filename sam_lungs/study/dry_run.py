"""The dry run of a study: check all inputs, then segment one slice to estimate the time."""

import io
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stderr
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd

from sam_lungs.data.case import Case, Finding
from sam_lungs.data.case_files import CaseFiles
from sam_lungs.segmenters.base import Segmenter
from sam_lungs.segmenters.registry import weights_path
from sam_lungs.study import layout
from sam_lungs.study.dry_run_table import print_table
from sam_lungs.study.options import Options
from sam_lungs.study.pipeline import naming
from sam_lungs.study.process import (
    findings,
    new_record,
    process_case,
    volume_prompts,
    written_folders,
)
from sam_lungs.study.reading import read_case_for
from sam_lungs.study.run_record import RunRecord
from sam_lungs.study.setup import existing_cases, identify_model, load_segmenters, prepare
from sam_lungs.study.unfinished import RunMismatchError, finished_record, kept_slices
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.text import count
from sam_lungs.utils.waiting import waiting

# What makes the first slice slower than the others takes a few seconds.
LONG_SECONDS = 5


class Cost(NamedTuple):
    """The cost of segmenting: seconds and bytes per slice, and further bytes per volume."""

    seconds: float
    slice_bytes: int
    volume_bytes: int


def check_study(options: Options) -> int:
    """Print a table of all cases, every fault, and an estimate of time and disk space.

    Warnings are printed on standard error. One slice of the first case without faults is segmented
    with each model to measure its time, with random weights where those of the model are missing.
    No file is kept.

    Returns the exit status 0. Raises `InputError` if there is any fault, and as `run_study` does.
    """
    prepare(options)
    models = options.for_each_model()
    for one in models:
        if one.checkpoint or not _missing_weights(one):
            # Wrong weights are reported before the volumes are read.
            identify_model(one)
    cases, faults = existing_cases(options)
    rows, warnings, to_do = [], [], [[] for _ in models]
    faulty = len(options.case_files) - len(cases) + len(options.problems)
    for files in cases:
        # With native preprocessing all models have a window, the same for all of them.
        case = read_case_for(files, models[0])
        found = findings(case, options)
        row = {"image": case.name} | _facts(case)
        if not any(each.is_fault for each in found):
            if case.masks:
                row["lung"] = str(len(case.lung_slices))
            counts = []
            for one, of_model in zip(models, to_do, strict=True):
                left, mismatches = _slices_left(case, one)
                found += mismatches
                counts.append(str(left))
                if left and not mismatches:
                    of_model.append((left, files))
            row["to do"] = ", ".join(counts)
        case_faults = [each.message for each in found if each.is_fault]
        faulty += bool(case_faults)
        faults += case_faults
        warnings += case.warnings
        rows.append(row | _names(found))
    if rows:
        print_table(rows)
    if faults:
        print("\nfaults:", *faults, sep="\n  ", flush=True)
    for warning in warnings:
        print(f"warning: {warning}", file=sys.stderr)
    for one, of_model in zip(models, to_do, strict=True):
        if not of_model:
            continue
        _print_cost(one, sum(left for left, _ in of_model), [files for _, files in of_model])
    if faulty:
        total = count(len(options.case_files) + len(options.problems), "volume")
        have = "has" if faulty == 1 else "have"
        raise InputError(f"{faulty} of {total} {have} faults; see above")
    return 0


def _missing_weights(options: Options) -> Path | None:
    """Return the path of the weights of a model if they are missing."""
    path = weights_path(options.model, options.checkpoint, options.model_folder)
    return path if path and not path.exists() else None


def _print_cost(options: Options, slices: int, cases: list[CaseFiles]) -> None:
    """Print the time and the disk space that slices of volumes need.

    Raises `InputError` when there is too little space, or a slice cannot be segmented.
    """
    name = options.model or options.model_folder.name
    missing = _missing_weights(options)
    segmenters = load_segmenters(options, untrained=bool(missing))
    work = f"{count(slices, 'slice')} of {count(len(cases), 'volume')} to segment with {name}"
    if segmenters is None:
        print(f"\n{work}; {missing} is missing, so the time is unknown: download it with")
        print(f"scripts/download_model_checkpoints.sh {name}")
        return
    case = read_case_for(cases[0], options)
    how = ", with random weights" if missing else ""
    with waiting(f"measuring one slice with {name}{how}"):
        cost = _rehearse(case, segmenters, options)
    duration = timedelta(seconds=round(slices * cost.seconds))
    expected_bytes = slices * cost.slice_bytes + len(cases) * cost.volume_bytes
    each = f"{cost.seconds:.3g} s each"
    print(f"\n{work}: about {duration} at {each}, {expected_bytes / 1e6:.3g} MB")
    if missing:
        print(f"{missing} is missing, so this was measured with random weights")
    for folder in written_folders(case, options):
        existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
        if (free_bytes := shutil.disk_usage(existing).free) < expected_bytes:
            raise InputError(
                f"{folder}: has {free_bytes / 1e6:.0f} MB free, but about"
                f" {expected_bytes / 1e6:.0f} MB will be written; choose another folder"
            )


def _facts(case: Case) -> dict[str, str]:
    """Return the cells of the table that could be read."""
    facts = {"masks": ", ".join(path.name for path in case.files.masks_paths[:2])}
    if (further := len(case.files.masks_paths) - 2) > 0:
        facts["masks"] += f" and {further} more"
    if case.image:
        array, geometry, window = case.image.array, case.image.geometry, case.window
        spacing = [f"{size:.3g}" for size in geometry.spacing_mm] if geometry else ["unknown"]
        facts |= {
            "size": "x".join(map(str, array.shape[:2])),
            "slices": str(array.shape[2]),
            "spacing mm": ",".join(spacing),
            "values": f"{array.min():g} to {array.max():g}",
            "window": f"{window.level_hu:g},{window.width_hu:g}" if window else "full range",
        }
    if case.masks:
        facts["labels"] = _labels(case)
    return facts


def _labels(case: Case) -> str:
    """Return the labels of a case, or the names of its objects; at most three and their number."""
    objects = case.files.reading.objects
    found = np.sort(pd.unique(case.masks.array.ravel(order="K")))
    names = [str(each) for each in objects or found[found != 0]]
    return ", ".join(names) if len(names) < 4 else f"{', '.join(names[:2])}, ... ({len(names)})"


def _names(found: list[Finding]) -> dict[str, str]:
    """Return the cells with the names of faults and warnings."""
    cells = {"faults": [], "warnings": []}
    for each in found:
        name = f"{each.name} (allowed)" if each.is_allowed else each.name
        cells["faults" if each.is_fault else "warnings"].append(name)
    empty = {"faults": "none", "warnings": "-"}
    return {name: ", ".join(dict.fromkeys(cell)) or empty[name] for name, cell in cells.items()}


def _slices_left(case: Case, options: Options) -> tuple[int, list[Finding]]:
    """Count the slices to segment; return a fault for each results folder of another run too."""
    prompted = {name: set(each.sources) for name, each in volume_prompts(case, options).items()}
    if options.slice is not None:
        return int(any(options.slice in each for each in prompted.values())), []
    if _missing_weights(options):
        return len(set().union(*prompted.values())), []
    left, mismatches = set(), []
    identity = identify_model(options)
    for name, protocol in options.protocols_of(case.name).items():
        study_folder = layout.study_folder(options.output_folder, case.files)
        folder = layout.results_folder(study_folder, name, case.name)
        inputs = case.image.identity, case.masks_identities
        record = new_record(case.files, *inputs, identity, options, protocol)
        try:
            finished = finished_record(folder, record, options.overwrite)
            if not finished:
                left |= prompted[name] - kept_slices(folder, record)
        except RunMismatchError as error:
            left |= prompted[name]
            mismatches.append(Finding("results", str(error), is_fault=True))
    return len(left), mismatches


def _rehearse(case: Case, segmenters: Sequence[Segmenter], options: Options) -> Cost:
    """Segment one slice into a temporary folder; again if it was fast: the first is slower."""
    prompts = volume_prompts(case, options)
    sources = next(iter(prompts.values())).sources
    index = next(index for index, source in sources.items() if index == source)
    prompts = {name: each for name, each in prompts.items() if index in each.sources}
    for each in prompts.values():
        each.sources = {index: index}
    if case.masks:
        # Metrics in 3-D of the whole volume would take long.
        masks = np.zeros_like(case.masks.array)
        masks[:, :, index] = case.masks.array[:, :, index]
        case = replace(case, masks=replace(case.masks, array=masks))
    for _ in range(2):
        with TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
            results, embeddings = Path(folder) / "results", Path(folder) / "embeddings"
            rehearsal = replace(
                options,
                slice=None,
                output_folder=results,
                embeddings_folder=options.embeddings_folder and embeddings,
            )
            with naming(case.files.path):
                process_case(case, segmenters, rehearsal, prompts)
            protocol = next(iter(prompts))
            run = RunRecord.read(layout.results_folder(results, protocol, case.name))
            slice_files = [*embeddings.rglob("*"), *results.rglob(f"{layout.DEBUG_FOLDER}/*")]
            slice_bytes, all_bytes = _size(slice_files), _size(Path(folder).rglob("*"))
            cost = Cost(run.seconds, slice_bytes, all_bytes - slice_bytes)
        if cost.seconds > LONG_SECONDS:
            break
    return cost


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
