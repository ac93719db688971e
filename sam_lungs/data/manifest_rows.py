"""The rows of a dataset: the files of each case, found by patterns or listed in a table."""

import csv
import difflib
import glob
import io
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import NamedTuple

from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import read_text

COLUMNS = ("case", "image", "masks", "patient", "subset")
# Control characters, and bytes that are not UTF-8 (Python has a surrogate for each).
UNUSABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]")

DOWNLOAD = (
    "or download the dataset first (the paper's: scripts/download_dataset.sh, its X-rays:"
    " scripts/download_dataset.sh montgomery)"
)


class Row(NamedTuple):
    """The files of a case, and whose they are."""

    case: str
    image: Path
    masks: tuple[Path, ...]
    patient: str | None = None
    subset: str | None = None


def find_rows(
    root: Path, images: str, masks: str, structures: list[str]
) -> tuple[list[Row], dict[str, str]]:
    """Return the complete cases under a folder, and {case: problem} for the others.

    images, masks: patterns with `{case}`. structures: what `{object}` in `masks` stands for, a
        masks file each.

    Raises `InputError` when nothing matches, or two paths of a pattern have the same case.
    """
    if not root.is_dir():
        raise InputError(f"{root}: no such folder; correct root, {DOWNLOAD}")
    patterns = [masks.replace("{object}", structure) for structure in structures] or [masks]
    masks_of = [_match(root, pattern) for pattern in patterns]
    image_of = _match(root, images, but={path for found in masks_of for path in found.values()})
    rows, problems = [], {}
    for case in sorted(set(image_of).union(*masks_of)):
        missing = [
            root / pattern.replace("{case}", case)
            for pattern, found in zip([images, *patterns], [image_of, *masks_of], strict=True)
            if case not in found
        ]
        if not missing:
            rows.append(Row(case, image_of[case], tuple(found[case] for found in masks_of)))
        elif case in image_of:
            problems[case] = f"{image_of[case]}: an image without masks, no {missing[0]}"
        else:
            masks_path = next(found[case] for found in masks_of if case in found)
            problems[case] = f"{masks_path}: masks without an image, no {missing[0]}"
    if not rows and not problems:
        raise InputError(
            f"nothing in {root} matches {images!r} or {masks!r}; correct one of them, {DOWNLOAD}"
        )
    return rows, problems


def read_table(path: Path, root: Path) -> tuple[list[Row], dict[str, str]]:
    """Return the complete rows of a table of cases, and {case: problem} for the others.

    root: folder of the images and masks.

    Raises `InputError` when it is not such a table, or a case or an image is there twice.
    """
    rows, problems, images = {}, {}, set()
    for where, cells in read_cells(path, COLUMNS, required=COLUMNS[:3]):
        case, image = _check_name(cells["case"]), root / cells["image"]
        if case in rows or case in problems or image in images:
            raise InputError(f"{where}: this case or its image is there twice; leave one out")
        masks = tuple(root / name.strip() for name in cells["masks"].split(";") if name.strip())
        if not (cells["image"] and masks):
            missing = "masks" if cells["image"] else "image"
            problems[case] = f"{where}: case {case} has no {missing}"
            continue
        images.add(image)
        of = (cells.get(name) or None for name in ("patient", "subset"))
        rows[case] = Row(case, image, masks, *of)
    if not rows and not problems:
        raise InputError(f"{path}: has no case; write a line for each")
    return list(rows.values()), problems


def read_cells(
    path: Path, columns: Collection[str], required: Collection[str]
) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield each row of a CSV file: its place for messages, and {column: text}.

    columns: all columns that the file may have. required: those that it must have.

    Raises `InputError` for other columns, and for a row with too few or too many cells.
    """
    try:
        reader = csv.DictReader(io.StringIO(read_text(path)), skipinitialspace=True)
        names, rows = reader.fieldnames or [], list(reader)
    except csv.Error as error:
        raise InputError(f"{path}: is not a CSV table ({error}); save it as CSV") from error
    for name in names:
        if name not in columns:
            raise InputError(f"{path}: unknown column {name!r}; {nearest(name, columns)}")
    if not set(names) >= set(required):
        raise InputError(f"{path}: must have the columns {','.join(required)} in its first line")
    for number, cells in enumerate(rows, start=1):
        where = f"{path}, row {number}"
        if None in cells or None in cells.values():
            raise InputError(f"{where}: has not {len(names)} cells; put a comma between two cells")
        yield where, {name: text.strip() for name, text in cells.items()}


def nearest(name: str, names: Collection[str]) -> str:
    """Return the end of a message about an unknown name: the most similar one, or all."""
    if close := difflib.get_close_matches(name, names, 1):
        return f"did you mean {close[0]}?"
    return "there are " + ", ".join(list(names)[:12]) + (", ..." if len(names) > 12 else "")


def _match(root: Path, pattern: str, but: Collection[Path] = ()) -> dict[str, Path]:
    """Return {case: path} of the files and folders that match a pattern, except `but`.

    As in a shell, `*` and `{case}` match no slash, and no dot at the start of a name.
    """
    wild, expression = "", ""
    for part in re.split(r"(\{case\}|\*+)", pattern):
        if part == "{case}":
            wild += "*"
            expression += "(?P=case)" if "(?P<case>" in expression else "(?P<case>[^/]+)"
        elif part.startswith("*"):
            wild, expression = wild + "*", expression + "[^/]*"
        else:
            wild, expression = wild + glob.escape(part), expression + re.escape(part)
    found = {}
    for name in sorted(glob.glob(wild, root_dir=root)):
        path, match = root / name, re.fullmatch(expression, name, re.DOTALL)
        if match is None or path in but:
            continue
        if UNUSABLE.search(name):
            raise InputError(f"{name!a} in {root}: is not a name in UTF-8; rename it")
        case = _check_name(match["case"])
        if case in found:
            raise InputError(f"{found[case]} and {path} are both case {case!r}; narrow the pattern")
        found[case] = path
    return found


def _check_name(case: str) -> str:
    """Return the name of a case if a results folder can have it."""
    if UNUSABLE.search(case) or not case or case.startswith(".") or "/" in case:
        raise InputError(f"results cannot be named {case!a}; rename the case")
    return case
