"""What a study writes to disk, and how it is read back and joined."""

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from sam_lungs.errors import InputError
from sam_lungs.files import replacing

METRICS = ("jaccard", "dice")
COLUMNS = {
    "slice": "int64",
    "jaccard": "float64",
    "dice": "float64",
    "score": "float64",
    "lung_pixels": "int64",
    "predicted_pixels": "Int64",  # with blanks
}
STATISTICS = ("min", "max", "avg", "std")

# The authors' published files carry the time of their run: raw_data_2023-05-27_09-43-55.csv
RAW_DATA_NAME = re.compile(r"raw_data(_[\d_-]+)?\.csv")


@dataclass(frozen=True)
class SliceResult:
    """One row of `raw_data.csv`; what only a slice with lung has is `None` without it.

    jaccard, dice, score (SAM's own expectation of the Jaccard index): 0..1.
    lung_pixels, predicted_pixels: areas of the true and of the predicted mask.
    """

    slice: int
    jaccard: float | None
    dice: float | None
    score: float | None
    lung_pixels: int
    predicted_pixels: int | None


def write_results(folder: Path, slices: list[SliceResult], run: dict) -> None:
    """Write a volume's `raw_data.csv`, `results.csv` and, last, `run.json`.

    Raises `InputError` when they cannot be written.
    """
    table = pd.DataFrame(slices, columns=list(COLUMNS)).astype(COLUMNS)
    write_csv(table, folder / "raw_data.csv")
    write_csv(summarize(table), folder / "results.csv")
    with replacing(folder / "run.json") as temporary:
        temporary.write_text(json.dumps(run, indent=2) + "\n")


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Return minimum, maximum, mean and sample standard deviation over the slices with lung.

    table: columns `jaccard` and `dice`, NaN where a slice has no lung.
    Returns one row per metric, in columns `metric,min,max,avg,std`; `std` of one slice is NaN.
    """
    values = table[list(METRICS)]
    statistics = [values.min(), values.max(), values.mean(), values.std(ddof=1)]
    summary = pd.DataFrame(dict(zip(STATISTICS, statistics, strict=True)))
    return summary.rename_axis("metric").reset_index()


def join_results(results_folder: Path, output_folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Join the volumes of a results folder, ours or the authors' published ones, into the study's.

    Writes `joint_raw_data.csv` (every slice, with its image's name), `joint_results.csv` (a row
    per volume) and `results.csv` (over all slices with lung); returns the first and the last.
    A folder without results is named on standard error and left out.

    Raises `InputError` when there is no volume, a table is broken, or nothing can be written.
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
    study = pd.concat(volumes, ignore_index=True)
    summary = summarize(study)
    write_csv(study, output_folder / "joint_raw_data.csv")
    write_csv(pd.DataFrame(map(_volume_row, volumes)), output_folder / "joint_results.csv")
    write_csv(summary, output_folder / "results.csv")
    return study, summary


def read_raw_data(path: Path) -> pd.DataFrame:
    """Read a volume's table of slices; the authors' has `slice`, `jaccard` and `dice` only.

    Raises `InputError` when it is not such a table, or breaks off.
    """
    try:
        # By way of text, because some versions of pandas round the last bit of a number they read.
        table = pd.read_csv(path, dtype="string")
        table = table.astype({name: COLUMNS[name] for name in table if name in COLUMNS})
        whole = path.read_bytes().endswith(b"\n")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a table of slices; process its image again") from error
    if not ({"slice", *METRICS} <= set(table.columns) and whole):
        raise InputError(f"{path}: not a whole table of slices; process its image again")
    return table


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with LF line ends, numbers in full, nothing where there is no number."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _volume_row(table: pd.DataFrame) -> dict:
    row = {
        "image": table["image"].iloc[0],
        "slices": len(table),
        "lung_slices": table["jaccard"].count(),
    }
    for metric in summarize(table).itertuples():
        row |= {f"{metric.metric}_{name}": getattr(metric, name) for name in STATISTICS}
    return row
