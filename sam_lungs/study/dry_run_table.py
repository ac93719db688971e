"""The table of the dry run, made to fit a terminal."""

import shutil
import sys
from textwrap import wrap

import pandas as pd

# Columns of the table; in a narrow terminal the last of `LEAST_NEEDED` are left out first.
COLUMNS = (
    *("image", "masks", "size", "slices", "spacing mm", "values", "window", "labels"),
    *("lung", "to do", "faults", "warnings"),
)
LEAST_NEEDED = ("size", "spacing mm", "window", "labels", "values", "masks")
SHORTEST = 12  # columns are not cut to less


def print_table(rows: list[dict[str, str]]) -> None:
    """Print a row per case, on a terminal no wider than it is. Missing cells are `-`."""
    table = pd.DataFrame([dict.fromkeys(COLUMNS, "-") | row for row in rows], columns=COLUMNS)
    lines = table_lines(table, sys.stdout.isatty() and shutil.get_terminal_size().columns)
    print("\n".join(lines))


def table_lines(table: pd.DataFrame, width: int | None = None) -> list[str]:
    """Return the lines of a table of texts, no longer than `width` as far as possible.

    Cells that are too long are cut. What is the same in all rows is said once, in lines above the
    table, which also name the columns that are left out.
    """
    if not width or sum(_widths(table).values()) <= width:
        return _lines(table, _widths(table))
    same = [name for name in table if name != "image" and len(table) > 1 == table[name].nunique()]
    said = [f"{name} {table[name].iloc[0]}" for name in same if table[name].iloc[0] != "-"]
    table, left_out = table.drop(columns=same), []
    widths = _cut(_widths(table), width)
    for name in reversed(LEAST_NEEDED):
        if sum(widths.values()) <= width:
            break
        if name in table:
            left_out.append(name)
            table = table.drop(columns=name)
            widths = _cut(_widths(table), width)
    above = wrap(f"all: {'; '.join(said)}", width) if said else []
    if left_out:
        above += wrap(f"too narrow for {', '.join(left_out)}; `| cat` shows all", width)
    return above + _lines(table, widths)


def _widths(table: pd.DataFrame) -> dict[str, int]:
    """Return the width of each column, with a space after all but the last."""
    widths = {name: 1 + max(len(name), table[name].str.len().max()) for name in table}
    widths[table.columns[-1]] -= 1
    return widths


def _cut(widths: dict[str, int], width: int) -> dict[str, int]:
    """Return narrower columns, the widest cut first."""
    widths = dict(widths)
    while sum(widths.values()) > width and max(widths.values()) > SHORTEST:
        widths[max(widths, key=widths.get)] -= 1
    return widths


def _lines(table: pd.DataFrame, widths: dict[str, int]) -> list[str]:
    last = table.columns[-1]
    lines = []
    for row in [dict(zip(table, table, strict=True)), *table.to_dict("records")]:
        cells = []
        for name, text in row.items():
            length = widths[name] - (name != last)
            if len(text) > length:
                # Names of files of a study mostly differ at their end.
                is_name = name in ("image", "masks")
                text = f"..{text[2 - length :]}" if is_name else f"{text[: length - 2]}.."
            cells.append(text.ljust(widths[name]))
        lines.append("".join(cells).rstrip())
    return lines
