"""Hold a dozen slices of the paper's CT volumes against the published ones, in minutes.

python -m sam_lungs.summary.reproduction
"""

import io
import time
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import chain, groupby
from operator import itemgetter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd

from sam_lungs.data import zenodo
from sam_lungs.data.case import Case, read_case
from sam_lungs.study import layout
from sam_lungs.study.metrics import METRICS
from sam_lungs.study.options import Options as StudyOptions
from sam_lungs.study.process import findings, process_case
from sam_lungs.study.results import read_raw_data
from sam_lungs.study.setup import load_segmenters
from sam_lungs.summary.published import published_slices
from sam_lungs.utils.cli import option, parse_options, run_script
from sam_lungs.utils.errors import InputError

# Those of the paper's figures, slice 0 of radiopaedia_14_85914_0, which has small lungs, and the
# middle one of the slices with lung of six more volumes. Slices of a volume are adjacent.
SLICES = (
    *(("coronacases_001", index) for index in (85, 98, 122, 177)),
    ("coronacases_005", 145),
    ("coronacases_010", 170),
    ("radiopaedia_10_85902_3", 171),
    ("radiopaedia_14_85914_0", 0),
    ("radiopaedia_29_86490_1", 25),
    ("radiopaedia_36_86526_0", 22),
    ("radiopaedia_40_86625_0", 46),
    ("radiopaedia_4_85506_1", 20),
)
# Largest difference of a slice's Jaccard index or Dice score that still counts as reproduced; the
# reason is in docs/paper.md.
MARGIN = 0.01


@dataclass(frozen=True)
class Options:
    """The options of this command."""

    checkpoint: Path | None = option(
        "weights file of ViT-L", None, "model", shown_default="the official one"
    )


def check_reproduction(checkpoint: Path | None = None, folder: Path = zenodo.DATASET_FOLDER) -> int:
    """Segment SLICES as the paper does; print what is published, what is here, and a verdict.

    The first slice is segmented before anything is printed, to say how long all of them take.
    folder: of the dataset, see `zenodo.fetch`.

    Returns the exit status: 0 when all slices are reproduced, else 1. Raises `InputError` when a
    volume or the model cannot be read.
    """
    names = list(dict.fromkeys(name for name, _ in SLICES))
    images, masks = (
        [folder / archive / f"{name}.nii.gz" for name in names] for archive in zenodo.ARCHIVES
    )
    options = StudyOptions(images, masks, align="voxels", checkpoint=checkpoint)
    rows = _segment_slices(load_segmenters(options), options)
    started = time.monotonic()
    first = next(rows)
    seconds = time.monotonic() - started
    total = timedelta(seconds=round(len(SLICES) * seconds))
    print(f"{len(SLICES)} slices, about {total} at {seconds:.3g} s each, as the first one took")
    columns = "published   here  difference"
    print(f"{'volume':<22} slice  Jaccard {columns}  Dice {columns}")
    table = []
    for row in chain([first], rows):
        table.append(row)
        numbers = (
            f"{row[f'{metric}_published']:{width}.4f} {row[f'{metric}_here']:.4f}"
            f" {row[f'{metric}_difference']:+11.4f}"
            for metric, width in zip(METRICS, (17, 14), strict=True)
        )
        print(f"{row['image']:<22} {row['slice']:5}  {'  '.join(numbers)}", flush=True)
    table = pd.DataFrame(table)
    print(verdict(table))
    return 0 if is_reproduced(table).all() else 1


def is_reproduced(table: pd.DataFrame) -> pd.Series:
    """Return whether each slice is within MARGIN of the published one.

    table: columns `jaccard_difference` and `dice_difference`.
    """
    return (table[[f"{metric}_difference" for metric in METRICS]].abs() <= MARGIN).all(axis=1)


def verdict(table: pd.DataFrame) -> str:
    """Return a line that says whether the slices are reproduced, and which one differs most."""
    count = is_reproduced(table).sum()
    differences = table[[f"{metric}_difference" for metric in METRICS]].abs().max(axis=1)
    worst = table.loc[differences.idxmax()]
    return (
        f"{'Reproduced' if count == len(table) else 'Not reproduced'}: {count} of {len(table)}"
        f" slices are within {MARGIN} of the published Jaccard index and Dice score;"
        f" {worst['image']}, slice {worst['slice']}, differs most, by {differences.max():.4f}"
    )


def _segment_slices(segmenters: list, options: StudyOptions) -> Iterator[dict]:
    """Yield a row per slice: `image,slice`, and each metric `published`, `here`, `difference`."""
    published = published_slices().set_index(["image", "slice"])
    groups = groupby(SLICES, itemgetter(0))
    for files, (name, slices) in zip(options.case_files, groups, strict=True):
        case = read_case(files)
        for _, index in slices:
            row = {"image": name, "slice": index}
            here = _segment_slice(case, index, segmenters, options)
            for metric, value in published.loc[(name, index)].items():
                row[f"{metric}_published"], row[f"{metric}_here"] = value, here[metric]
                row[f"{metric}_difference"] = here[metric] - value
            yield row


def _segment_slice(case: Case, index: int, segmenters: list, options: StudyOptions) -> pd.Series:
    """Process a case in which only one slice has lung; return the slice's Jaccard and Dice."""
    faults = [each for each in findings(case, replace(options, slice=index)) if each.is_fault]
    if faults:
        raise InputError(faults[0].message)
    if index not in case.lung_slices:
        raise InputError(f"{case.masks.path}: no lung in slice {index}; download the dataset again")
    masks = np.zeros_like(case.masks.array)
    masks[:, :, index] = case.masks.array[:, :, index]
    case = replace(case, masks=replace(case.masks, array=masks))
    with TemporaryDirectory() as folder, redirect_stderr(io.StringIO()):
        process_case(case, segmenters, replace(options, output_folder=Path(folder)))
        results = layout.results_folder(Path(folder), "", case.name)
        return read_raw_data(results / layout.RAW_DATA_NAME).loc[index, list(METRICS)]


def main() -> int:
    command = "python -m sam_lungs.summary.reproduction"
    description = "Hold a dozen slices of the paper's CT volumes against the published ones."
    options = parse_options(Options, description, command, prog=command)
    zenodo.fetch()
    return check_reproduction(options.checkpoint)


if __name__ == "__main__":
    run_script(main)
