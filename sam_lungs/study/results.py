"""Write and read the tables of a volume's results."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from sam_lungs.prompts.protocols import Prompts
from sam_lungs.study.layout import EMPTY_SLICES_NAME, RAW_DATA_NAME, SUMMARY_NAME
from sam_lungs.study.metrics import METRICS, metrics_in, volume_metrics_in
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import atomic_write, remove

# Int64 may have empty cells.
DTYPES = {
    **{int: "int64", float: "float64", float | None: "float64", int | None: "Int64"},
    dict[str, float]: "object",
}
STATISTICS = ("min", "max", "avg", "std", "slices")


@dataclass(frozen=True)
class SliceResult:
    """One row of `raw_data.csv`. In a slice without objects only `slice` and `lung_pixels` are set.

    jaccard, dice, score (the model's predicted IoU): 0..1. score is None where it is not known.
    lung_pixels, predicted_pixels: areas of the reference mask and of the predicted mask; None
        without reference masks, and where the slice was not segmented.
    interactions: points and corners of boxes that a user gives in this slice; None if not known.
    more: further metrics, by the names of their columns.
    """

    slice: int
    jaccard: float | None = None
    dice: float | None = None
    score: float | None = None
    lung_pixels: int | None = 0
    predicted_pixels: int | None = None
    interactions: int | None = None
    more: dict[str, float] = field(default_factory=dict)


RAW_DATA_COLUMNS = tuple(each.name for each in fields(SliceResult) if each.name != "more")


@dataclass(frozen=True)
class EmptySlice:
    """One row of `empty_slices.csv`: a slice without objects.

    prompted_as: index of the nearest slice with prompts, whose prompts are used; None where the
        prompts are interpolated.
    predicted_pixels, predicted_mm2: area of the predicted mask, which is all false positive; mm2 is
        NaN when the spacing is unknown.
    """

    slice: int
    prompted_as: int | None
    predicted_pixels: int
    predicted_mm2: float


def write_volume_tables(
    folder: Path,
    table: pd.DataFrame,
    of_volume: dict[str, float],
    empty_slices: list[EmptySlice] | None = None,
) -> None:
    """Write a volume's `raw_data.csv` and `results.csv`, and `empty_slices.csv` if given.

    table: see `slices_table`. of_volume: metrics of the whole volume, and its `interactions`, which
        get a row each in `results.csv`.
    empty_slices: if None, the file of an earlier run is removed.

    Raises `InputError` when they cannot be written.
    """
    rows = [{"metric": name, "avg": value} for name, value in of_volume.items()]
    tables = [pd.DataFrame(rows)]
    if table["lung_pixels"].notna().any():  # there are reference masks
        tables.insert(0, summarize(table))
    summary = pd.concat(tables, ignore_index=True).reindex(columns=["metric", *STATISTICS])
    write_csv(table, folder / RAW_DATA_NAME)
    write_csv(summary.astype({"avg": "float64", "slices": "Int64"}), folder / SUMMARY_NAME)
    remove(folder / EMPTY_SLICES_NAME)
    if empty_slices is not None:
        write_csv(_to_table(empty_slices, EmptySlice), folder / EMPTY_SLICES_NAME)


def slices_table(slices: list[SliceResult]) -> pd.DataFrame:
    """Return the table of a volume's slices, with a column for each metric of `more`."""
    table = _to_table(slices, SliceResult).drop(columns="more")
    more = pd.DataFrame([each.more for each in slices], index=table.index, dtype="float64")
    return pd.concat([table, more], axis=1)


def write_prompts(path: Path, of_slice: dict, prompts: Sequence[Prompts]) -> None:
    """Write the prompts of a slice as YAML.

    of_slice: keys that are written first: image, masks and index of the slice.
    prompts: one, or one per object.

    Raises `InputError` when it cannot be written.
    """
    objects = [as_dict(each) for each in prompts]
    content = objects[0] if len(objects) == 1 else {"objects": objects}
    with atomic_write(path) as temporary:
        temporary.write_text(yaml.safe_dump(of_slice | content, sort_keys=False))


def as_dict(prompts: Prompts) -> dict:
    """Return prompts as plain lists and numbers, with the keys of `slice_N_prompt.yml`."""
    points = [
        {"row": int(row), "column": int(column), "label": int(label)}
        for (row, column), label in zip(prompts.points_rc, prompts.labels, strict=True)
    ]
    box = None
    if prompts.box_rc is not None:
        corners = ("row_min", "column_min", "row_max", "column_max")
        box = dict(zip(corners, prompts.box_rc.tolist(), strict=True))
    return {"points": points, "box": box}


def summarize(table: pd.DataFrame) -> pd.DataFrame:
    """Return minimum, maximum, mean and sample standard deviation over the slices with objects.

    table: columns `jaccard`, `dice`, optionally those of other metrics; NaN in slices without
        objects.
    Returns one row per metric, in columns `metric,min,max,avg,std,slices`. `std` of one slice is
    NaN. `slices` is the number of slices with a value; an empty predicted mask has no `hd95_mm`.
    """
    return statistics_of(table[metrics_in(table)])


def statistics_of(values: pd.DataFrame) -> pd.DataFrame:
    """Return a row with STATISTICS for each column, whose name is in the column `metric`."""
    summary = pd.DataFrame(statistics_in(values))
    return summary.rename_axis("metric").reset_index()


def statistics_in(values: pd.DataFrame | pd.Series) -> dict[str, pd.Series | float]:
    """Return STATISTICS, each a number, or of a table a number per column."""
    statistics = values.min(), values.max(), values.mean(), values.std(ddof=1), values.count()
    return dict(zip(STATISTICS, statistics, strict=True))


def lung_slices_dice(table: pd.DataFrame) -> float:
    """Return one Dice score of all pixels of a volume's slices with objects.

    NaN without any, and when one of them was not segmented.

    table: columns `dice`, `lung_pixels` and `predicted_pixels`.
    """
    names = ["dice", "lung_pixels", "predicted_pixels"]
    dice, reference, predicted = (
        table[name].to_numpy("float64", na_value=np.nan) for name in names
    )
    has_lung = reference > 0
    if not has_lung.any() or np.isnan(dice[has_lung]).any():
        return float("nan")
    areas = (reference + predicted)[has_lung]
    return float((dice[has_lung] * areas).sum() / areas.sum())


def read_volume_metrics(folder: Path) -> dict[str, float]:
    """Return the metrics of a whole volume in the `results.csv` of a results folder."""
    averages = pd.read_csv(folder / SUMMARY_NAME, index_col="metric")["avg"]
    return averages[volume_metrics_in(averages.index)].to_dict()


def read_raw_data(path: Path) -> pd.DataFrame:
    """Read a volume's `raw_data.csv`; the authors' files have `slice`, `jaccard` and `dice` only.

    Raises `InputError` when it is not such a table, or is truncated.
    """
    return _read_csv(path, SliceResult, {"slice", *METRICS})


def read_empty_slices(folder: Path) -> pd.DataFrame:
    """Read the `empty_slices.csv` of a results folder; raises as `read_raw_data` does."""
    return _read_csv(folder / EMPTY_SLICES_NAME, EmptySlice, set(_dtypes(EmptySlice)))


def _read_csv(path: Path, row: type, required: set[str]) -> pd.DataFrame:
    """Read a table of rows of a dataclass that has at least the required columns."""
    try:
        # Read as text first, because some versions of pandas do not parse the last bit exactly.
        table = pd.read_csv(path, dtype="string")
        if not (required <= set(table) and path.read_bytes().endswith(b"\n")):
            raise ValueError("incomplete")
        dtypes = dict.fromkeys(metrics_in(table), "float64") | _dtypes(row)
        return table.astype({name: dtypes[name] for name in table if name in dtypes})
    except (OSError, ValueError, TypeError) as error:
        raise InputError(
            f"{path}: not a table of slices, or truncated; process the image again"
        ) from error


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table with LF line ends and empty cells for NaN; numbers are not rounded.

    Raises `InputError` when it cannot be written.
    """
    with atomic_write(path) as temporary:
        table.to_csv(temporary, index=False, lineterminator="\n")


def _to_table(rows: list, row: type) -> pd.DataFrame:
    dtypes = _dtypes(row)
    return pd.DataFrame(rows, columns=list(dtypes)).astype(dtypes)


def _dtypes(row: type) -> dict[str, str]:
    """Return the column dtypes of a table with a row per instance of a dataclass."""
    return {each.name: DTYPES[each.type] for each in fields(row)}
