"""Volumes' results -> the study's tables."""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sam_lungs.errors import InputError
from sam_lungs.results import STATISTICS, read_raw_data, summarize, write_csv
from sam_lungs.statistics import estimate, summarize_cases

# The authors' published files carry the time of their run: raw_data_2023-05-27_09-43-55.csv
RAW_DATA_NAME = re.compile(r"raw_data(_[\d_-]+)?\.csv")


class Study(NamedTuple):
    """The tables of a study: of slices, volumes and patients, over all slices, and `estimate`'s."""

    slices: pd.DataFrame
    volumes: pd.DataFrame
    cases: pd.DataFrame
    summary: pd.DataFrame
    intervals: pd.DataFrame


# The file of each, in the same order.
TABLES = (
    "joint_raw_data.csv",
    "joint_results.csv",
    "joint_cases.csv",
    "results.csv",
    "intervals.csv",
)


def join_results(results_folder: Path) -> Study:
    """Join the volumes of a results folder, ours or the authors' published ones, into the study's.

    A folder without results is named on standard error and left out.

    Raises `InputError` when there is no volume, or a table is broken.
    """
    if not results_folder.is_dir():
        raise InputError(f"{results_folder}: no such folder; process an image first")
    volumes = []
    for folder in sorted(path for path in results_folder.iterdir() if path.is_dir()):
        tables = sorted(path for path in folder.iterdir() if RAW_DATA_NAME.fullmatch(path.name))
        if not tables:
            print(f"warning: {folder}: has no raw_data.csv; left out", file=sys.stderr)
            continue
        # Our own, else the last of the authors', whose names sort by time.
        own = folder / "raw_data.csv"
        table = read_raw_data(own if own in tables else tables[-1])
        table.insert(0, "image", folder.name)
        volumes.append(table)
    if not volumes:
        raise InputError(f"{results_folder}: holds no folder with a raw_data.csv; process an image")
    slices = pd.concat(volumes, ignore_index=True)
    of_volumes = pd.DataFrame(map(_volume_row, volumes))
    return Study(
        slices, of_volumes, summarize_cases(of_volumes), summarize(slices), estimate(of_volumes)
    )


def write_study(study: Study, output_folder: Path) -> None:
    """Write `joint_raw_data.csv` (every slice, with its image's name), `joint_results.csv` (a row
    per volume), `joint_cases.csv` (a row per patient), `intervals.csv` (means and how sure they
    are, see `statistics.estimate`) and `results.csv` (over all slices with lung).

    Raises `InputError` when they cannot be written.
    """
    for table, name in zip(study, TABLES, strict=True):
        write_csv(table, output_folder / name)


def _volume_row(table: pd.DataFrame) -> dict:
    row = {
        "image": table["image"].iloc[0],
        "slices": len(table),
        "lung_slices": table["jaccard"].count(),
    }
    for metric in summarize(table).itertuples():
        row |= {f"{metric.metric}_{name}": getattr(metric, name) for name in STATISTICS}
    return row
