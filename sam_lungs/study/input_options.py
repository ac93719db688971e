"""Parsers of the options that say how the files of a case are read."""

import re
from collections.abc import Sequence

from sam_lungs.data.case_files import FAULTS
from sam_lungs.data.windowing import parse_window
from sam_lungs.utils.errors import InputError


def check_window(text: str) -> str:
    """Return the text of `--window` after a check, see `data.windowing.choose_window`."""
    if text != "auto":
        parse_window(text)
    return text


def parse_names(text: str) -> tuple[str, ...]:
    """Parse names separated by commas."""
    names = tuple(text.split(","))
    if "" in names:
        raise InputError("give names separated by commas")
    return names


def parse_allow(text: str) -> tuple[str, ...]:
    """Parse names of faults separated by commas."""
    names = parse_names(text)
    for name in names:
        if name not in FAULTS:
            raise InputError(f"unknown fault {name!r}; the faults are {', '.join(FAULTS)}")
    return names


def parse_spacing(text: str) -> tuple[float, ...]:
    """Parse the distances in mm between rows, columns and, if given, slices."""
    try:
        spacing_mm = tuple(float(number) for number in text.split(","))
    except ValueError:
        spacing_mm = ()
    if len(spacing_mm) not in (2, 3) or not all(0 < size < float("inf") for size in spacing_mm):
        raise InputError("give ROWS,COLUMNS or ROWS,COLUMNS,SLICES in mm, such as 0.7,0.7,5")
    return spacing_mm


def parse_labels(texts: Sequence[str]) -> dict[str, tuple[int, ...]] | None:
    """Parse the values of `--labels`; return the labels of each object, `None` without a value.

    `10,11` makes each label an object, named after it; `left=10,11` merges labels to one object.

    Raises `InputError` for another text, for a label or a name that is given twice, and for both
    forms together.
    """
    objects = []
    for text in texts:
        parsed = re.fullmatch(r"((?!\d+=)[^=]+=)?([1-9]\d{0,8}(?:,[1-9]\d{0,8})*)", text)
        if not parsed:
            raise InputError(
                f"--labels {text}: give labels such as 10,11,12, or objects such as left=10,11"
                " right=12; a label is an integer, at least 1, and a name is not a number"
            )
        labels = tuple(map(int, parsed[2].split(",")))
        name = parsed[1]
        objects += [(name[:-1], labels)] if name else [(str(one), (one,)) for one in labels]
    for given in ([name for name, _ in objects], [one for _, labels in objects for one in labels]):
        for value in given:
            if given.count(value) > 1:
                raise InputError(f"--labels: {value} is given twice; leave one out")
    if len({"=" in text for text in texts}) > 1:
        raise InputError("--labels: give every object a name, as in left=10,11, or none of them")
    return dict(objects) or None
