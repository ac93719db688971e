"""What a volume's results are on disk, and how they are read back."""

import json
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from sam_lungs.errors import InputError
from sam_lungs.files import replacing
from sam_lungs.prompts import Prompts

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


def write_prompts(path: Path, of_slice: dict, prompts: Prompts) -> None:
    """Write the prompts of a slice as YAML, after what tells which slice it is.

    Raises `InputError` when it cannot be written.
    """
    points = [
        {"row": int(row), "column": int(column), "label": int(label)}
        for (row, column), label in zip(prompts.points_rc, prompts.labels, strict=True)
    ]
    box = None
    if prompts.box_rc is not None:
        corners = ("row_min", "column_min", "row_max", "column_max")
        box = dict(zip(corners, prompts.box_rc.tolist(), strict=True))
    with replacing(path) as temporary:
        temporary.write_text(
            yaml.safe_dump(of_slice | {"points": points, "box": box}, sort_keys=False)
        )


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Return minimum, maximum, mean and sample standard deviation over the slices with lung.

    table: columns `jaccard` and `dice`, NaN where a slice has no lung.
    Returns one row per metric, in columns `metric,min,max,avg,std`; `std` of one slice is NaN.
    """
    values = table[list(METRICS)]
    statistics = [values.min(), values.max(), values.mean(), values.std(ddof=1)]
    summary = pd.DataFrame(dict(zip(STATISTICS, statistics, strict=True)))
    return summary.rename_axis("metric").reset_index()


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
