"""What a volume's results are on disk, and how they are read back."""

import json
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import yaml

from sam_lungs.prompts.rules import Prompts
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import remove, replacing, sha256_of

# Every table of slices has the first two, as the authors'; the others are asked for.
METRICS = ("jaccard", "dice")
SURFACE_METRICS = ("nsd", "hd95_mm")
COLUMNS = {
    "slice": "int64",
    "jaccard": "float64",
    "dice": "float64",
    "score": "float64",
    "lung_pixels": "int64",
    "predicted_pixels": "Int64",  # with blanks
    "nsd": "float64",
    "hd95_mm": "float64",
}
EMPTY_COLUMNS = {
    "slice": "int64",
    "prompted_as": "int64",
    "predicted_pixels": "int64",
    "predicted_mm2": "float64",
}
# A volume's files; the last is written last, and vouches for the others by their SHA-256.
RAW_DATA_NAME = "raw_data.csv"
SUMMARY_NAME = "results.csv"
EMPTY_SLICES_NAME = "empty_slices.csv"
MASKS_NAME = "predicted_masks.nii.gz"
RUN_NAME = "run.json"
# What a run has done so far, until it is finished.
JOURNAL_NAME = "unfinished.journal"
STATISTICS = ("min", "max", "avg", "std", "slices")


@dataclass(frozen=True)
class SliceResult:
    """One row of `raw_data.csv`; what only a slice with lung has is `None` without it.

    jaccard, dice, score (SAM's own expectation of the Jaccard index): 0..1.
    lung_pixels, predicted_pixels: areas of the true and of the predicted mask.
    nsd, hd95_mm: as `metrics.surface_agreement` gives them, `None` when not asked for.
    """

    slice: int
    jaccard: float | None
    dice: float | None
    score: float | None
    lung_pixels: int
    predicted_pixels: int | None
    nsd: float | None = None
    hd95_mm: float | None = None


@dataclass(frozen=True)
class EmptySlice:
    """One row of `empty_slices.csv`: a slice without lung, prompted as its nearest slice with lung.

    predicted_pixels, predicted_mm2: area of the predicted mask, all of it false; NaN mm2 when the
    spacing is not known.
    """

    slice: int
    prompted_as: int
    predicted_pixels: int
    predicted_mm2: float


def write_results(
    folder: Path,
    slices: list[SliceResult],
    run: dict,
    metrics: Collection[str] = METRICS,
    empty_slices: list[EmptySlice] | None = None,
) -> None:
    """Write a volume's `raw_data.csv`, `results.csv` and, last, `run.json`.

    run: what to write there, to which the SHA-256 of the other files is added; one of them may be
        `predicted_masks.nii.gz`, which is in the folder before.
    metrics: which of `SURFACE_METRICS` get columns, and whether `volume_dice` gets a row.
    empty_slices: written as `empty_slices.csv` unless `None`.

    Raises `InputError` when they cannot be written.
    """
    columns = {
        name: dtype
        for name, dtype in COLUMNS.items()
        if name in metrics or name not in SURFACE_METRICS
    }
    table = pd.DataFrame(slices)[list(columns)].astype(columns)
    summary = summarize(table)
    if "volume_dice" in metrics:
        row = {"metric": "volume_dice", "avg": volume_dice(table)}
        summary = pd.concat([summary, pd.DataFrame([row])], ignore_index=True)
    # Without it, what lies here counts as half-written.
    remove(folder / RUN_NAME)
    write_csv(table, folder / RAW_DATA_NAME)
    write_csv(summary.astype({"slices": "Int64"}), folder / SUMMARY_NAME)
    # What an earlier run left here would be taken for this one's.
    remove(folder / EMPTY_SLICES_NAME)
    if empty_slices is not None:
        table = pd.DataFrame(empty_slices, columns=list(EMPTY_COLUMNS))
        write_csv(table.astype(EMPTY_COLUMNS), folder / EMPTY_SLICES_NAME)
    names = (RAW_DATA_NAME, SUMMARY_NAME, EMPTY_SLICES_NAME, MASKS_NAME)
    files = {name: sha256_of(folder / name) for name in names if (folder / name).exists()}
    with replacing(folder / RUN_NAME) as temporary:
        temporary.write_text(json.dumps(run | {"files": files}, indent=2) + "\n")


def read_run(folder: Path) -> dict | None:
    """Read the `run.json` of a volume's results folder; `None` without one.

    Raises `InputError` when it is not the record of a run.
    """
    path = folder / RUN_NAME
    try:
        run = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: not the record of a run; process its image again") from error
    if not isinstance(run, dict):
        raise InputError(f"{path}: not the record of a run; process its image again")
    return run


def changed_file(folder: Path, run: dict) -> Path | None:
    """Return a file of a volume's results that its `run.json` does not vouch for, if there is one.

    run: as `read_run` returns it.
    """
    paths = {folder / name: sha256 for name, sha256 in run.get("files", {}).items()}
    for path, sha256 in paths.items():
        if not path.exists() or sha256_of(path) != sha256:
            return path
    return None


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

    table: columns `jaccard`, `dice` and perhaps `SURFACE_METRICS`, NaN where a slice has no lung.
    Returns one row per metric, in columns `metric,min,max,avg,std,slices`: `std` of one slice is
    NaN; `slices` is how many have the metric, fewer than have lung where a mask that is empty has
    no `hd95_mm`.
    """
    values = table[[name for name in (*METRICS, *SURFACE_METRICS) if name in table]]
    statistics = values.min(), values.max(), values.mean(), values.std(ddof=1), values.count()
    summary = pd.DataFrame(dict(zip(STATISTICS, statistics, strict=True)))
    return summary.rename_axis("metric").reset_index()


def volume_dice(table: pd.DataFrame) -> float:
    """Return the Dice score of a volume's slices with lung taken together, all of their pixels.

    table: columns `dice`, `lung_pixels` and `predicted_pixels`.
    """
    of_lung = table[table["dice"].notna()]
    areas = (of_lung["lung_pixels"] + of_lung["predicted_pixels"]).astype("float64")
    return float((of_lung["dice"] * areas).sum() / areas.sum())


def read_raw_data(path: Path) -> pd.DataFrame:
    """Read a volume's table of slices; the authors' has `slice`, `jaccard` and `dice` only.

    Raises `InputError` when it is not such a table, or breaks off.
    """
    try:
        table = _read_csv(path, COLUMNS)
        whole = path.read_bytes().endswith(b"\n")
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{path}: not a table of slices; process its image again") from error
    if not ({"slice", *METRICS} <= set(table.columns) and whole):
        raise InputError(f"{path}: not a whole table of slices; process its image again")
    return table


def read_empty_slices(folder: Path) -> pd.DataFrame:
    """Read the `empty_slices.csv` of a volume's results folder.

    Raises `InputError` when it is not such a table.
    """
    path = folder / EMPTY_SLICES_NAME
    try:
        return _read_csv(path, EMPTY_COLUMNS)[list(EMPTY_COLUMNS)]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: not a table of empty slices; process its image again") from error


def _read_csv(path: Path, dtypes: dict[str, str]) -> pd.DataFrame:
    """Read a table, its columns as `dtypes` has them.

    By way of text, because some versions of pandas round the last bit of a number they read.
    """
    table = pd.read_csv(path, dtype="string")
    return table.astype({name: dtype for name, dtype in dtypes.items() if name in table})


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with LF line ends, numbers in full, nothing where there is no number."""
    with replacing(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")
