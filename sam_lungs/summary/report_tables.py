"""The tables of the report: those of a study with fewer columns and rows, for a page."""

import re
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import pandas as pd
from markupsafe import Markup, escape

from sam_lungs.study.metrics import metrics_in, volume_metrics_in
from sam_lungs.summary import figures
from sam_lungs.summary.statistics import interval_name

# Of more volumes than figures show one by one, the worst and those around the median are shown.
SHOWN_VOLUMES = 20
# More columns with numbers do not fit a page.
SHOWN_METRICS = 9
SHOWN_NAMES = 5
SHOWN_GROUPS = 10
# A number, perhaps with an interval, or none.
NUMBER = re.compile(r"(< )?-?\d+(\.\d+)?(e-?\d+)?( \(.*\))?|-")
# Long names may be broken after these.
BEFORE_BREAK = re.compile(r"[_./:]")
SMALLEST_P = 0.0001


class Cell(NamedTuple):
    """text: what is shown. is_text: its column has texts; it may be wrapped, and is on the left."""

    text: str | Markup
    is_text: bool


class Table(NamedTuple):
    """A table for readers."""

    header: list[str]
    rows: list[list[Cell]]


def readable(table: pd.DataFrame) -> Table:
    """Return a table with four decimals, and a dash where there is no value."""
    header = [str(name).replace("_", " ") for name in table.columns]
    return table_of(header, table.itertuples(index=False, name=None))


def table_of(header: Sequence[str], rows: Iterable[Sequence]) -> Table:
    """Return a table of values of any kind; its header is shown as it is."""
    cells = [[_cell(value) for value in row] for row in rows]
    are_text = [any(cell.is_text for cell in column) for column in zip(*cells, strict=True)]
    return Table(
        list(header),
        [
            [cell._replace(is_text=is_text) for cell, is_text in zip(row, are_text, strict=True)]
            for row in cells
        ],
    )


def headline(intervals: pd.DataFrame) -> pd.DataFrame:
    """Return the table of intervals; the mean over patients comes first."""
    return pd.DataFrame(
        {
            "subset": intervals["subset"],
            "metric": intervals["metric"],
            "mean over patients": _with_interval(intervals, "case_avg", "case"),
            "mean over volumes": _with_interval(intervals, "volume_avg", "volume"),
            "patients": intervals["cases"],
            "volumes": intervals["volumes"],
            "slices": intervals["slices"],
            "interactions": intervals["interactions"].map(_short),
            "training data": intervals["exposure"],
        }
    )


def interval_names(intervals: pd.DataFrame) -> dict[str, str]:
    """Return the name of the interval of each subset."""
    return dict(intervals.groupby("subset", sort=False)["cases"].max().map(interval_name))


def volumes_table(volumes: pd.DataFrame) -> pd.DataFrame:
    """Return a row per volume with its means; of many volumes the worst and the median ones."""
    averages = metrics_in(name.removesuffix("_avg") for name in volumes if name.endswith("_avg"))
    shown = [*(f"{name}_avg" for name in averages), *volume_metrics_in(volumes.columns)]
    columns = ["image", "subset", "patient", "slices", "lung_slices", "dice_min"]
    columns += [*shown[:SHOWN_METRICS], "interactions"]
    table = volumes[[name for name in columns if name in volumes]].dropna(axis=1, how="all")
    return worst_and_median(table, volumes["dice_avg"])


def worst_and_median(table: pd.DataFrame, order: pd.Series) -> pd.DataFrame:
    """Return a table; of more than MANY_VOLUMES rows the first and those in the middle, by `order`.

    These have a column `place`, which counts from the first.
    """
    if len(table) <= figures.MANY_VOLUMES:
        return table
    ranked = table.loc[order.sort_values(kind="stable").index]
    ranked.insert(0, "place", range(1, len(ranked) + 1))
    middle = (len(ranked) - SHOWN_VOLUMES) // 2
    return pd.concat([ranked[:SHOWN_VOLUMES], ranked[middle : middle + SHOWN_VOLUMES]])


def comparison_table(with_first: pd.DataFrame) -> pd.DataFrame:
    """Return the comparison of a run with others; a value and its interval share a column.

    with_first: rows of `compare.compare_runs` with the same `first`.
    """
    interactions = [with_first[f"{side}_interactions"] for side in ("first", "second")]
    table = pd.DataFrame(
        {
            "compared with": with_first["second"],
            "metric": with_first["metric"],
            "patients": with_first["cases"],
            "slices": with_first["slices"],
            "left out": with_first["slices_left_out"],
            "this run": with_first["first_avg"],
            "other": with_first["second_avg"],
            "difference": _with_interval(with_first, "difference", ""),
            "p": with_first["p"].map(_p),
            "p holm": with_first["p_holm"].map(_p),
            "effect": _with_interval(with_first, "effect", "effect"),
            "effect p": with_first["effect_p"].map(_p),
            "interactions: this, other": [
                ", ".join(map(_short, of_both)) for of_both in zip(*interactions, strict=True)
            ],
        }
    )
    return table.dropna(axis=1, how="all")


def settings_tables(settings: dict[str, list]) -> dict:
    """Return the settings that all volumes share, and those in which groups of volumes differ.

    settings: see `settings.how_it_was_made`.

    Keys: `shared_settings`, name and value; `different_settings`, a row per group; `groups`, their
    number.
    """
    groups = pd.DataFrame(settings)
    if groups.empty:
        return {"shared_settings": {}, "different_settings": groups, "groups": 0}
    groups.insert(0, "volumes", groups.pop("volumes").map(_few_names))
    is_shared = groups.nunique() == 1
    return {
        "shared_settings": {name: groups[name].iloc[0] for name in groups if is_shared[name]},
        "different_settings": groups.loc[:, ~is_shared][:SHOWN_GROUPS],
        "groups": len(groups),
    }


def by_value(settings: pd.DataFrame) -> pd.DataFrame:
    """Return a row per setting and value, with its runs, because many runs do not fit as columns.

    settings: see `settings.settings_of_runs`.
    """
    rows = []
    for setting, *values in settings.itertuples(index=False):
        for value in dict.fromkeys(values):
            runs = [
                run for run, each in zip(settings.columns[1:], values, strict=True) if each == value
            ]
            rows.append({"setting": setting, "value": value, "runs": _few_names(", ".join(runs))})
    return pd.DataFrame(rows)


def _few_names(names: str) -> str:
    """Return the first of a list of names, and how many there are."""
    first = names.split(", ")
    if len(first) <= SHOWN_NAMES:
        return names
    return f"{len(first)}: {', '.join(first[:SHOWN_NAMES])}, ..."


def _with_interval(table: pd.DataFrame, name: str, ends: str) -> pd.Series:
    """Return a column as text, with its interval where there is one, which is not broken."""
    low, high = (f"{ends}_{end}" if ends else end for end in ("low", "high"))
    return pd.Series(
        [
            None
            if pd.isna(row[name])
            else f"{row[name]:.4f}"
            + ("" if pd.isna(row[low]) else f" ({row[low]:.4f}\u00a0to\u00a0{row[high]:.4f})")
            for row in table.to_dict("records")
        ],
        index=table.index,
        dtype="object",
    )


def _short(value: float) -> str:
    return "-" if pd.isna(value) else f"{value:g}"


def _p(value: float) -> object:
    return f"< {SMALLEST_P}" if value < SMALLEST_P else value


def _cell(value: object) -> Cell:
    if pd.isna(value):
        text = "-"
    elif isinstance(value, float):
        text = f"{value:.4f}"
    else:
        text = str(value)
    if NUMBER.fullmatch(text):
        return Cell(text, is_text=False)
    return Cell(Markup(BEFORE_BREAK.sub(r"\g<0><wbr>", str(escape(text)))), is_text=True)
