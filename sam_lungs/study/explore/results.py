"""Write and read the results of an exploration."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from sam_lungs.study.explore.kinds import KINDS
from sam_lungs.study.explore.layout import SUMMARY_NAME, VALUES_NAME, map_arrays_name
from sam_lungs.study.explore.options import ExploreOptions
from sam_lungs.study.results import write_csv
from sam_lungs.study.run_record import RunRecord
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import atomic_write

QUANTITIES = ("quantity", "object", "value")
INTEGERS = ("slice", "row", "column", "repeat", "points", "box", "clicks", "label", "evaluations")
TEXTS = ("object", "rule", "prompts", "quantity")


@dataclass(frozen=True, eq=False)
class Exploration:
    """The results of the exploration of a volume.

    values: a row per measured prompt. summary: columns `quantity`, `object`, `value`.
    """

    record: RunRecord
    values: pd.DataFrame
    summary: pd.DataFrame


def read_exploration(folder: Path) -> Exploration | None:
    """Read the results of an exploration from the folder of a volume; None if it is unfinished.

    Raises `InputError` when a file is missing, damaged, or has changed since it was written.
    """
    record = RunRecord.read(folder)
    if record is None:
        return None
    if changed := record.changed_file(folder):
        raise InputError(
            f"{changed}: has changed since it was written; explore it again with --overwrite"
        )
    return Exploration(record, _read(folder / VALUES_NAME), _read(folder / SUMMARY_NAME))


def values_table(lines: Sequence[dict]) -> pd.DataFrame:
    """Return the values of slices, in their order.

    lines: of the log: `index`, and `tables` as `Kind.explore` returns them.
    """
    tables = [
        pd.DataFrame({"slice": line["index"]} | table)
        for line in sorted(lines, key=lambda line: line["index"])
        for table in line["tables"]
    ]
    values = pd.concat(tables, ignore_index=True)
    return values.astype({name: "Int64" for name in INTEGERS if name in values})


def summary_table(values: pd.DataFrame, options: ExploreOptions) -> pd.DataFrame:
    """Return the quantities of a table of values, columns `quantity`, `object`, `value`."""
    rows = KINDS[options.kind].summarize(values, options)
    return pd.DataFrame(rows, columns=QUANTITIES)


def write_tables(folder: Path, values: pd.DataFrame, options: ExploreOptions) -> None:
    """Write `values.csv` and `summary.csv`; raises `InputError` when they cannot be written."""
    columns = ["slice", "object", *KINDS[options.kind].columns, "jaccard", "dice"]
    write_csv(values[columns], folder / VALUES_NAME)
    write_csv(summary_table(values, options), folder / SUMMARY_NAME)


@dataclass(frozen=True, eq=False)
class ClickMap:
    """Dice scores, (rows, columns) float64, of clicks at these rows and columns of the slice."""

    dice: np.ndarray
    rows: np.ndarray
    columns: np.ndarray


def maps_of(tables: Sequence[dict]) -> dict[str, ClickMap]:
    """Return the maps of a slice by object, from its tables."""
    maps = {}
    for table in tables:
        rows, columns = np.unique(table["row"]), np.unique(table["column"])
        dice = np.array(table["dice"]).reshape(len(rows), len(columns))
        maps[table["object"]] = ClickMap(dice, rows, columns)
    return maps


def write_map(folder: Path, index: int, maps: dict[str, ClickMap]) -> None:
    """Write the maps of a slice as `slice_N_map.npz`: for each object its three arrays.

    Raises `InputError` when it cannot be written.
    """
    arrays = {
        f"{name}_{part}": array for name, each in maps.items() for part, array in vars(each).items()
    }
    with atomic_write(folder / map_arrays_name(index)) as temporary:
        np.savez(temporary, **arrays)


def read_map(path: Path) -> dict[str, ClickMap]:
    """Read a file that `write_map` wrote; raises `InputError` when it is none."""
    try:
        with open(path, "rb") as file, np.load(file) as arrays:
            names = [name.removesuffix("_dice") for name in arrays if name.endswith("_dice")]
            return {
                name: ClickMap(*(arrays[f"{name}_{part}"] for part in ("dice", "rows", "columns")))
                for name in names
            }
    except Exception as error:  # a damaged file raises almost any type
        raise InputError(f"{path}: not a map, or damaged; explore the image again") from error


def _read(path: Path) -> pd.DataFrame:
    # Read as text first, because some versions of pandas do not parse the last bit exactly. Only
    # empty cells are missing: an object may be named NA.
    table = pd.read_csv(path, dtype="string", keep_default_na=False, na_values=[""])
    dtypes = dict.fromkeys(table, "float64")
    dtypes |= dict.fromkeys(TEXTS, "object") | dict.fromkeys(INTEGERS, "Int64")
    return table.astype({name: dtypes[name] for name in table})
