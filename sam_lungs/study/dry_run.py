"""The dry run of a study: check all inputs, then segment one slice to estimate the time."""

import io
import os
import shutil
from collections.abc import Iterable
from contextlib import redirect_stderr
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd

from sam_lungs.data.case import Case
from sam_lungs.data.readers import read_case
from sam_lungs.segmenters.registry import identify, weights_path
from sam_lungs.study import layout
from sam_lungs.study.options import Options
from sam_lungs.study.process import case_faults, new_record, process_case, written_folders
from sam_lungs.study.run_record import RunRecord
from sam_lungs.study.setup import load_segmenters, prepare
from sam_lungs.study.unfinished import RunMismatchError, finished_record, kept_slices
from sam_lungs.utils.errors import InputError


class Cost(NamedTuple):
    """The cost of segmenting: seconds and bytes per slice, and further bytes per volume."""

    seconds: float
    slice_bytes: int
    volume_bytes: int


def check_study(options: Options) -> int:
    """Print a table of all volumes with every fault, and an estimate of time and disk space.

    One slice of the first volume without faults is segmented to measure its time, unless the
    weights are missing. No file is kept.

    Returns the exit status, 1 if there is any fault. Raises `InputError` as `run_study` does.
    """
    prepare(options)
    weights = weights_path(options.model, options.checkpoint)
    if options.checkpoint or weights.exists():
        # Wrong weights are reported before the volumes are read.
        identify(options.model, options.checkpoint)
    rows, faulty, to_do = [], 0, []
    for pair in options.pairs:
        case = read_case(*pair, options.window, options.strict_geometry)
        faults = case_faults(case, options)
        row = {"image": case.name} | _facts(case)
        if not faults:
            left = _slices_left(case, options, faults)
            row |= {"with lung": str(len(case.lung_slices)), "to do": str(left)}
            if left and not faults:
                to_do.append((left, pair))
        faulty += bool(faults)
        rows.append(row | {"faults": "; ".join(faults) or "none"})
    _print_table(pd.DataFrame(rows).fillna("-"))
    if to_do:
        slices = sum(left for left, _ in to_do)
        print(f"\n{slices} slices of {len(to_do)} volumes to segment with {options.model}", end="")
        if weights.exists():
            _print_cost(options, slices, [pair for _, pair in to_do])
        else:
            print(f"; {weights} is missing, so the time is unknown")
    if faulty:
        raise InputError(f"{faulty} of {len(rows)} volumes have faults; see the table")
    return 0


def _print_table(table: pd.DataFrame) -> None:
    widths = {name: max(table[name].str.len().max(), len(name)) for name in table}
    left_aligned = {name: f"{{:<{width}}}".format for name, width in widths.items()}
    print(table.to_string(index=False, justify="left", formatters=left_aligned))


def _print_cost(options: Options, slices: int, pairs: list[tuple[Path, Path]]) -> None:
    """Print the time and the disk space that slices of volumes need.

    Raises `InputError` when there is too little space, or a slice cannot be segmented.
    """
    case = read_case(*pairs[0], options.window, options.strict_geometry)
    cost = _rehearse(case, options)
    duration = timedelta(seconds=round(slices * cost.seconds))
    expected_bytes = slices * cost.slice_bytes + len(pairs) * cost.volume_bytes
    print(f": about {duration} at {cost.seconds:.3g} s each, {expected_bytes / 1e6:.3g} MB")
    for folder in written_folders(case, options):
        existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
        if (free_bytes := shutil.disk_usage(existing).free) < expected_bytes:
            raise InputError(
                f"{folder}: has {free_bytes / 1e6:.0f} MB free, but about"
                f" {expected_bytes / 1e6:.0f} MB will be written; choose another folder"
            )


def _facts(case: Case) -> dict[str, str]:
    """Return the cells of the table that could be read."""
    facts = {}
    if case.image:
        *size_rc, slices = case.image.array.shape
        low, high = case.image.array.min(), case.image.array.max()
        window = case.window
        facts |= {
            "size": " x ".join(map(str, size_rc)),
            "slices": str(slices),
            "voxels": f"{case.image.array.dtype} {low:g} to {high:g}",
            "window": f"{window.level_hu:g},{window.width_hu:g} HU" if window else "none",
        }
    if case.masks:
        labels = np.sort(pd.unique(case.masks.array.ravel(order="K")))
        facts["labels"] = ", ".join(map(str, labels[labels != 0]))
    if case.image and case.masks:
        known = case.image.geometry and case.masks.geometry
        facts["affines"] = (
            "not known" if not known else "differ" if case.geometry_warning else "agree"
        )
    return facts


def _slices_left(case: Case, options: Options, faults: list[str]) -> int:
    """Count the slices to segment; append a fault if a results folder holds another run."""
    prompted = set(case.prompted(options.empty_slices))
    if options.slice is not None:
        return int(options.slice in prompted)
    if options.overwrite or not weights_path(options.model, options.checkpoint).exists():
        return len(prompted)
    done = []
    for name, protocol in options.protocols.items():
        study_folder = layout.study_folder(options.output_folder, case.image_path)
        folder = layout.results_folder(study_folder, name, case.name)
        inputs = case.image.identity, case.masks.identity
        record = new_record(*inputs, identify(options.model, options.checkpoint), options, protocol)
        try:
            finished = finished_record(folder, record)
            done.append(prompted if finished else kept_slices(folder, record))
        except RunMismatchError as error:
            faults.append(str(error))
    return len(prompted - set.intersection(*done)) if done else len(prompted)


def _rehearse(case: Case, options: Options) -> Cost:
    """Segment one slice into a temporary folder; twice, because the first is slower."""
    index = case.lung_slices[0]
    masks = np.zeros_like(case.masks.array)
    masks[:, :, index] = case.masks.array[:, :, index]
    case = replace(case, masks=replace(case.masks, array=masks))
    segmenters = load_segmenters(options)
    for _ in range(2):
        with TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
            results, embeddings = Path(folder) / "results", Path(folder) / "embeddings"
            rehearsal = replace(
                options,
                slice=None,
                output_folder=results,
                embeddings_folder=options.embeddings_folder and embeddings,
                empty_slices="skip",
            )
            process_case(case, segmenters, rehearsal)
            protocol = next(iter(options.protocols))
            run = RunRecord.read(layout.results_folder(results, protocol, case.name))
            slice_files = [*embeddings.rglob("*"), *results.rglob(f"{layout.DEBUG_FOLDER}/*")]
            slice_bytes, all_bytes = _size(slice_files), _size(Path(folder).rglob("*"))
            cost = Cost(run.seconds, slice_bytes, all_bytes - slice_bytes)
    return cost


def _size(paths: Iterable[Path]) -> int:
    return sum(path.stat().st_size for path in paths if path.is_file())
