"""Volumes' results -> the study's tables."""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sam_lungs.study.results import (
    JOURNAL_NAME,
    RAW_DATA_NAME,
    RUN_NAME,
    STATISTICS,
    changed_file,
    read_empty_slices,
    read_raw_data,
    read_run,
    summarize,
    volume_dice,
    write_csv,
)
from sam_lungs.summary.statistics import estimate, summarize_cases
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import remove

# The authors' published files carry the time of their run: raw_data_2023-05-27_09-43-55.csv
PUBLISHED_NAME = re.compile(r"raw_data(_[\d_-]+)?\.csv")


EMPTY_COLUMNS = (
    "image",
    "slices_without_lung",
    "with_false_positives",
    "pixels_avg",
    "mm2_avg",
    "mm2_max",
)


class Study(NamedTuple):
    """The tables of a study, and what is not in them.

    slices, volumes, cases: a row per slice, volume and patient. summary: over all slices with lung.
    intervals: `statistics.estimate`'s. empty_slices: a row per volume on what SAM found in its
    slices without lung, none if nobody looked. left_out: why a folder is in none of them, a line
    each.
    """

    slices: pd.DataFrame
    volumes: pd.DataFrame
    cases: pd.DataFrame
    summary: pd.DataFrame
    intervals: pd.DataFrame
    empty_slices: pd.DataFrame
    left_out: list[str]


TABLES = {
    "slices": "joint_raw_data.csv",
    "volumes": "joint_results.csv",
    "cases": "joint_cases.csv",
    "summary": "results.csv",
    "intervals": "intervals.csv",
    "empty_slices": "joint_empty_slices.csv",
}
# Of the study, in its results folder; no volume's.
FIGURES_FOLDER = "figures"


def join_results(results_folder: Path) -> Study:
    """Join the volumes of a results folder, ours or the authors' published ones, into the study's.

    A folder without results, or with half of them, is named on standard error and left out.

    Raises `InputError` when there is no volume, or a file is broken or not what its run wrote.
    """
    if not results_folder.is_dir():
        raise InputError(f"{results_folder}: no such folder; process an image first")
    volumes, empty_slices, left_out = [], [], []
    for folder in sorted(path for path in results_folder.iterdir() if path.is_dir()):
        if folder.name == FIGURES_FOLDER:
            continue
        tables = sorted(path for path in folder.iterdir() if PUBLISHED_NAME.fullmatch(path.name))
        # Our own, else the last of the authors', whose names sort by time.
        own = folder / RAW_DATA_NAME
        if problem := _problem(folder, tables):
            left_out.append(f"{folder}: {problem}; left out")
            print(f"warning: {left_out[-1]}", file=sys.stderr)
            continue
        table = read_raw_data(own if own in tables else tables[-1])
        table.insert(0, "image", folder.name)
        volumes.append(table)
        if (folder / "empty_slices.csv").exists():
            empty_slices.append(_empty_row(folder.name, read_empty_slices(folder)))
    if not volumes:
        raise InputError(f"{results_folder}: holds no folder with a raw_data.csv; process an image")
    slices = pd.concat(volumes, ignore_index=True)
    of_volumes = pd.DataFrame(map(_volume_row, volumes))
    return Study(
        slices,
        of_volumes,
        summarize_cases(of_volumes),
        summarize(slices),
        estimate(of_volumes),
        pd.DataFrame(empty_slices, columns=EMPTY_COLUMNS),
        left_out,
    )


def _problem(folder: Path, tables: list[Path]) -> str | None:
    """Why a folder does not hold the results of a volume.

    Raises `InputError` when it does, but they were changed.
    """
    run = read_run(folder)
    is_begun = (folder / JOURNAL_NAME).exists()
    if is_begun and (run is None or changed_file(folder, run)):
        return "its run is not finished; the same command goes on"
    if run is None:
        if folder / RAW_DATA_NAME in tables:
            return f"its run broke off (there is no {RUN_NAME})"
    elif changed := changed_file(folder, run):
        raise InputError(
            f"{changed}: is not what its run wrote; process its image again, with --overwrite"
        )
    return None if tables else f"has no {RAW_DATA_NAME}"


def write_study(study: Study, output_folder: Path) -> None:
    """Write `joint_raw_data.csv` (every slice, with its image's name), `joint_results.csv` (a row
    per volume), `joint_cases.csv` (a row per patient), `intervals.csv` (means and how sure they
    are, see `statistics.estimate`), `results.csv` (over all slices with lung), and, if a volume has
    been asked about its slices without lung, `joint_empty_slices.csv`.

    Raises `InputError` when they cannot be written.
    """
    for name, file_name in TABLES.items():
        table = getattr(study, name)
        if len(table):
            write_csv(table, output_folder / file_name)
        else:  # that of an earlier study
            remove(output_folder / file_name)


def _volume_row(table: pd.DataFrame) -> dict:
    row = {
        "image": table["image"].iloc[0],
        "slices": len(table),
        "lung_slices": table["jaccard"].count(),
    }
    for metric in summarize(table).itertuples():
        row |= {f"{metric.metric}_{name}": getattr(metric, name) for name in STATISTICS}
    if "predicted_pixels" in table:  # not in the authors'
        row["volume_dice"] = volume_dice(table)
    return row


def _empty_row(image: str, table: pd.DataFrame) -> dict:
    found = table["predicted_pixels"]
    area_mm2 = table["predicted_mm2"]
    numbers = len(table), (found > 0).sum(), found.mean(), area_mm2.mean(), area_mm2.max()
    return dict(zip(EMPTY_COLUMNS, (image, *numbers), strict=True))
