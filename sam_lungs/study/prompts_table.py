"""Read prompts from a CSV table with a row for each point and box."""

import csv
import io
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from sam_lungs.study.drawn import KINDS, Drawn, Raters, assemble, draw_box
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import read_text

COLUMNS = ("case", "slice", "kind", "row", "column")
# The lower right corner of a box; only a table with a box needs these.
CORNER_COLUMNS = ("row2", "column2")


def read_table(path: Path) -> Raters:
    """Read the prompts of a CSV table.

    Rows with the same rater, case, slice and object are one object. A column that is not a key
    describes the slice: its rows have the same text there, or none.

    Raises `InputError` with file and line for anything that is not such a table.
    """
    # {(rater, case, slice): ({object: what is drawn}, further columns)}
    slices: dict[tuple[str, str, int], tuple[dict[str, list[Drawn]], dict[str, str]]] = {}
    for where, cells in _rows(path):
        drawn = _of_row(where, cells)
        key = cells.pop("rater", ""), cells["case"], _integer(where, cells, "slice")
        objects, further = slices.setdefault(key, ({}, {}))
        objects.setdefault(cells.get("object", ""), []).append(drawn)
        for name in cells:
            if name in (*COLUMNS, *CORNER_COLUMNS, "object"):
                continue
            text, other = cells[name], further.get(name)
            if text and other and text != other:
                raise InputError(
                    f"{where}: {name} is {text!r}, but {other!r} in another row of the slice; write"
                    " it in one row of a slice only"
                )
            further[name] = text or other or ""
    raters: Raters = {}
    for (rater, case, index), (objects, further) in slices.items():
        of_case = raters.setdefault(rater, {}).setdefault(case, {})
        of_case[index] = assemble(objects.values(), further)
    if not raters:
        raise InputError(f"{path}: has no prompts; write a row for each point and box")
    return raters


def _rows(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row of a table that is not empty: file and line, and {column: text}."""
    reader = csv.reader(io.StringIO(read_text(path), newline=""), skipinitialspace=True)
    names: list[str] = []
    try:
        for cells in reader:
            where = f"{path}, line {reader.line_num}"
            cells = [cell.strip() for cell in cells]
            if not any(cells):
                continue
            if not names:
                names = cells
                _check_header(where, names)
                continue
            if len(cells) != len(names):
                raise InputError(
                    f"{where}: has {len(cells)} cells for {len(names)} columns; put a comma between"
                    " two cells, also between empty ones"
                )
            row = dict(zip(names, cells, strict=True))
            for name in ("case", "rater", "object"):
                if row.get(name) == "":
                    raise InputError(f"{where}: has no {name}; write one")
            yield where, row
    except csv.Error as error:
        line = reader.line_num
        raise InputError(f"{path}, line {line}: is not CSV ({error}); save it as CSV") from error
    if not names:
        raise InputError(f"{path}: is empty; the first line is {','.join(COLUMNS)}")


def _check_header(where: str, names: list[str]) -> None:
    if missing := [name for name in COLUMNS if name not in names]:
        raise InputError(
            f"{where}: has no column {missing[0]}; the first line must have"
            f" {','.join((*COLUMNS, *CORNER_COLUMNS))}, with commas"
        )
    if "" in names or len(set(names)) < len(names):
        raise InputError(f"{where}: a column has no name, or the name of another; rename it")


def _of_row(where: str, cells: Mapping[str, str]) -> Drawn:
    kind = cells["kind"]
    if kind not in KINDS:
        raise InputError(f"{where}: kind is {kind!r}; write one of {', '.join(KINDS)}")
    if kind == "box":
        corners_rc = tuple(
            _integer(where, cells, name) for name in ("row", "column", *CORNER_COLUMNS)
        )
        return draw_box(where, corners_rc)
    if any(cells.get(name) for name in CORNER_COLUMNS):
        raise InputError(f"{where}: a {kind} point has no row2 and column2; leave them empty")
    return Drawn(where, kind, (_integer(where, cells, "row"), _integer(where, cells, "column")))


def _integer(where: str, cells: Mapping[str, str], name: str) -> int:
    """Return a cell's integer; tables with empty cells are often saved with 12.0 for 12."""
    text = cells.get(name, "")
    if not re.fullmatch(r"-?[0-9]{1,9}(\.0*)?", text):
        raise InputError(f"{where}: {name} is {text!r}; write an integer")
    return int(text.partition(".")[0])
