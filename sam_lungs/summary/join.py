"""Results folders of volumes -> the tables of a study."""

import re
import sys
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sam_lungs.study import layout, results
from sam_lungs.study.run_record import RunRecord
from sam_lungs.summary.statistics import estimate, summarize_cases
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import remove

# The authors' files have the time of their run in their names: raw_data_2023-05-27_09-43-55.csv
PUBLISHED_NAME = re.compile(r"raw_data_[\d_-]+\.csv")

# The fields of JoinedResults that are written, and their files.
TABLES = {
    "slices": "joint_raw_data.csv",
    "volumes": "joint_results.csv",
    "cases": "joint_cases.csv",
    "summary": "results.csv",
    "intervals": "intervals.csv",
    "empty_slices": "joint_empty_slices.csv",
}


class JoinedResults(NamedTuple):
    """The tables of a study.

    slices, volumes, cases: a row per slice, per volume and per patient. summary: a row per metric,
    over all slices with lung. intervals: see `statistics.estimate`. empty_slices: a row per volume
    whose slices without lung were segmented too; may be empty. left_out: for each folder that is
    not in the tables, a line that says why.
    """

    slices: pd.DataFrame
    volumes: pd.DataFrame
    cases: pd.DataFrame
    summary: pd.DataFrame
    intervals: pd.DataFrame
    empty_slices: pd.DataFrame
    left_out: list[str]


def join_results(folder: Path) -> JoinedResults:
    """Join the results of all volumes in a folder, ours or the authors' published ones.

    Folders without results, and those of unfinished runs, are left out with a warning.

    Raises `InputError` when no volume is found, and when a file cannot be read or was changed.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; process an image first")
    volumes, empty_slices, left_out = [], [], []
    for volume_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        if volume_folder.name == layout.FIGURES_FOLDER:
            continue
        path = _find_table(volume_folder)
        if isinstance(path, str):
            left_out.append(f"{volume_folder}: {path}; left out")
            print(f"warning: {left_out[-1]}", file=sys.stderr)
            continue
        table = results.read_raw_data(path)
        table.insert(0, "image", volume_folder.name)
        volumes.append(table)
        if (volume_folder / layout.EMPTY_SLICES_NAME).exists():
            empty_slices.append(_empty_row(volume_folder))
    if not volumes:
        raise InputError(f"{folder}: no folder has results; process an image first")
    slices = pd.concat(volumes, ignore_index=True)
    by_volume = pd.DataFrame(map(_volume_row, volumes))
    return JoinedResults(
        slices,
        by_volume,
        summarize_cases(by_volume),
        results.summarize(slices),
        estimate(by_volume),
        pd.DataFrame(empty_slices),
        left_out,
    )


def print_means(joined: JoinedResults) -> None:
    """Print the summary over slices, and the means of volumes and patients."""
    print(joined.summary.to_string(index=False))
    print("\nMeans of volumes (bootstrap) and of patients (t), with 95 % intervals over patients:")
    print(joined.intervals.round(4).to_string(index=False))


def write_tables(joined: JoinedResults, output_folder: Path) -> None:
    """Write the tables, see TABLES; an empty table is not written, and an older one removed.

    Raises `InputError` when they cannot be written.
    """
    for name, file_name in TABLES.items():
        table = getattr(joined, name)
        if len(table):
            results.write_csv(table, output_folder / file_name)
        else:
            remove(output_folder / file_name)


def _find_table(folder: Path) -> Path | str:
    """Return the table of slices of a volume, or why there is none.

    Raises `InputError` when a result file was changed.
    """
    record = RunRecord.read(folder)
    changed = record and record.changed_file(folder)
    table = folder / layout.RAW_DATA_NAME
    if record and not changed:
        return table
    if (folder / layout.UNFINISHED_FOLDER).exists() or (table.exists() and not record):
        return "its run is unfinished; rerun the same command to resume"
    if changed:
        raise InputError(
            f"{changed}: missing, or changed since its run; process its image again, with"
            " --overwrite"
        )
    # The names sort by time.
    published = sorted(path for path in folder.iterdir() if PUBLISHED_NAME.fullmatch(path.name))
    return published[-1] if published else f"has no {table.name}"


def _volume_row(table: pd.DataFrame) -> dict:
    lung_slices = table["jaccard"].count()
    row = {"image": table["image"].iloc[0], "slices": len(table), "lung_slices": lung_slices}
    for metric in results.summarize(table).to_dict("records"):
        row |= {f"{metric['metric']}_{name}": metric[name] for name in results.STATISTICS}
    if "predicted_pixels" in table:  # not in the authors' tables
        row["volume_dice"] = results.volume_dice(table)
    return row


def _empty_row(folder: Path) -> dict:
    table = results.read_empty_slices(folder)
    pixels, mm2 = table["predicted_pixels"], table["predicted_mm2"]
    return {
        "image": folder.name,
        "slices_without_lung": len(table),
        "with_false_positives": (pixels > 0).sum(),
        "pixels_avg": pixels.mean(),
        "mm2_avg": mm2.mean(),
        "mm2_max": mm2.max(),
    }
