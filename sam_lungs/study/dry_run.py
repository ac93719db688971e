"""A look at all that a study is given, and a rehearsal, before hours are spent on it."""

import io
import os
import shutil
from contextlib import redirect_stderr
from copy import copy
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import pandas as pd

from sam_lungs.data.volumes import volume_name
from sam_lungs.study.case import (
    Inspected,
    Pair,
    check_names,
    inspect,
    read_input,
    written_folders,
)
from sam_lungs.study.results import read_run
from sam_lungs.study.resume import is_finished, recorded_slices
from sam_lungs.study.run import Study
from sam_lungs.utils.errors import InputError, report


class Cost(NamedTuple):
    """What segmenting takes: seconds and bytes of a slice, and bytes of a volume besides."""

    seconds: float
    slice_bytes: int
    volume_bytes: int


def inspect_study(study: Study, image_paths: list[Path], masks_paths: list[Path]) -> int:
    """Print a table of all volumes with every fault of each, and what the study is going to take.

    A slice of the first faultless volume is segmented to know how long one takes, unless the
    weights have still to be downloaded. Nothing is written that stays.

    Returns the exit status, 1 if there is any fault. Raises `InputError` when the lists do not pair
    up, two images would share a folder, or the weights are there but cannot be used.
    """
    check_names(image_paths, masks_paths, study.options)
    if study.options.checkpoint or study.weights_path.exists():
        study.checkpoint  # noqa: B018  a wrong one is told before the volumes are read
    rows, faulty, to_do = [], 0, []
    for paths in zip(image_paths, masks_paths, strict=True):
        found = inspect(*paths, study.options)
        row = {"image": volume_name(paths[0])} | _facts(found)
        if not found.faults:
            pair = Pair(found.image, found.masks, found.window, found.warning)
            left = _slices_left(study, pair, found.faults)
            row |= {"with lung": str(len(pair.lung_slices)), "to do": str(left)}
            if left and not found.faults:
                to_do.append((left, paths))
        faulty += bool(found.faults)
        rows.append(row | {"faults": "; ".join(found.faults) or "none"})
    _print_table(pd.DataFrame(rows).fillna("-"))
    if to_do:
        try:
            _tell_cost(study, to_do)
        except InputError as error:
            report(error)
            return 1
    if faulty:
        report(InputError(f"{faulty} of {len(rows)} volumes have faults; see the table"))
        return 1
    return 0


def _print_table(table: pd.DataFrame) -> None:
    widths = {name: max(table[name].str.len().max(), len(name)) for name in table}
    left_aligned = {name: f"{{:<{width}}}".format for name, width in widths.items()}
    print(table.to_string(index=False, justify="left", formatters=left_aligned))


def _tell_cost(study: Study, to_do: list[tuple[int, tuple[Path, Path]]]) -> None:
    """Print the time and the room on the disk that slices of volumes are going to take.

    Raises `InputError` when there is not as much room, or not even one slice can be segmented.
    """
    slices = sum(left for left, _ in to_do)
    print(
        f"\n{slices} slices of {len(to_do)} volumes to segment with {study.options.model}", end=""
    )
    if not study.weights_path.exists():
        print(f"; {study.weights_path} is not there, so how long that takes is not known")
        return
    _, first = to_do[0]
    cost = _rehearse(study, read_input(*first, study.options))
    duration = timedelta(seconds=round(slices * cost.seconds))
    expected_bytes = slices * cost.slice_bytes + len(to_do) * cost.volume_bytes
    print(f": about {duration} at {cost.seconds:.3g} s each, {expected_bytes / 1e6:.3g} MB")
    for folder in written_folders(first[0], study.options):
        existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
        if (free_bytes := shutil.disk_usage(existing).free) < expected_bytes:
            raise InputError(
                f"{folder}: has room for {free_bytes / 1e6:.0f} MB, but about"
                f" {expected_bytes / 1e6:.0f} MB are to be written; choose another place"
            )


def _facts(found: Inspected) -> dict[str, str]:
    """What the table tells of a pair, as far as it could be read."""
    facts = {}
    if found.image:
        window = found.window
        *size_rc, slices = found.image.array.shape
        low, high = found.image.array.min(), found.image.array.max()
        facts |= {
            "size": " x ".join(map(str, size_rc)),
            "slices": str(slices),
            "voxels": f"{found.image.array.dtype} {low:g} to {high:g}",
            "window": f"{window.level_hu:g},{window.width_hu:g} HU" if window else "none",
        }
    if found.masks:
        labels = np.sort(pd.unique(found.masks.array.ravel(order="K")))
        facts["labels"] = ", ".join(map(str, labels[labels != 0]))
    if found.image and found.masks:
        known = found.image.geometry and found.masks.geometry
        facts["affines"] = "not known" if not known else "differ" if found.warning else "agree"
    return facts


def _slices_left(study: Study, pair: Pair, faults: list[str]) -> int:
    """Count the slices to segment; what another run left where results would go is a fault."""
    options = study.options
    prompted = set(pair.prompted(options.empty_slices))
    if options.slice_index is not None:
        return int(options.slice_index in prompted)
    if options.overwrite or not study.weights_path.exists():
        return len(prompted)
    run = study.describe(pair.image.identity, pair.masks.identity)
    done = []
    for protocol in options.protocols:
        folder = options.results_folder(protocol, pair.image.path)
        try:
            finished = is_finished(folder, run | study.rules(protocol))
            done.append(prompted if finished else recorded_slices(folder))
        except InputError as error:
            faults.append(str(error))
    return len(prompted - set.intersection(*done)) if done else len(prompted)


def _rehearse(study: Study, pair: Pair) -> Cost:
    """Segment a slice as the study would, into a folder that goes away; twice, to be warm."""
    index = pair.lung_slices[0]
    masks = np.zeros_like(pair.masks.array)
    masks[:, :, index] = pair.masks.array[:, :, index]
    pair = replace(pair, masks=replace(pair.masks, array=masks))
    rehearsal = copy(study)
    for _ in range(2):
        with TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
            results, embeddings = Path(folder) / "results", Path(folder) / "embeddings"
            rehearsal.options = replace(
                study.options,
                slice_index=None,
                output_folder=results,
                embeddings_folder=study.options.embeddings_folder and embeddings,
                empty_slices="skip",
            )
            rehearsal.process_volume(pair)
            protocol = next(iter(study.options.protocols))
            run = read_run(rehearsal.options.results_folder(protocol, pair.image.path))
            volume_bytes = _size(results)
            cost = Cost(run["seconds"], _size(Path(folder)) - volume_bytes, volume_bytes)
    return cost


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
