"""Points and boxes of a file of prompts, with their lines, and the prompts made of them."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from sam_lungs.prompts.protocols import Prompts
from sam_lungs.utils.errors import InputError

KINDS = ("positive", "negative", "box")


class Drawn(NamedTuple):
    """A point or a box of a file.

    where: file and line, for messages. kind: of `KINDS`. corners_rc: (row, column) of a point;
    (top, left, bottom, right) of a box, where bottom and right are one past it.
    """

    where: str
    kind: str
    corners_rc: tuple[int, ...]


class SlicePrompts(NamedTuple):
    """The prompts of one slice.

    prompts: one per object. drawn: the same, point by point. further: {column: text} of the other
    columns of a table, empty text if a column has no value for the slice.
    """

    prompts: list[Prompts]
    drawn: list[Drawn]
    further: dict[str, str]


# {rater: {case: {slice: its prompts}}}, in the order of the file; the rater is "" if none is named.
Raters = dict[str, dict[str, dict[int, SlicePrompts]]]


def draw_box(where: str, corners_rc: tuple[int, ...]) -> Drawn:
    """Return a box; raises `InputError` if it has no area."""
    top, left, bottom, right = corners_rc
    if top >= bottom or left >= right:
        raise InputError(
            f"{where}: the box ({top}, {left}, {bottom}, {right}) has no area; its second corner is"
            " one past the last row and column"
        )
    return Drawn(where, "box", corners_rc)


def assemble(objects: Iterable[list[Drawn]], further: dict[str, str]) -> SlicePrompts:
    """Return the prompts of a slice from what is drawn for each of its objects.

    Raises `InputError` for two boxes of one object.
    """
    objects = list(objects)
    return SlicePrompts(
        [_prompts(drawn) for drawn in objects],
        [each for drawn in objects for each in drawn],
        further,
    )


def _prompts(drawn: list[Drawn]) -> Prompts:
    boxes = [each for each in drawn if each.kind == "box"]
    if len(boxes) > 1:
        raise InputError(
            f"{boxes[1].where}: a second box, the first is in {boxes[0].where}; write the name"
            " of the object of each row in a column object"
        )
    points = [each for each in drawn if each.kind != "box"]
    return Prompts(
        np.array([each.corners_rc for each in points], dtype=np.int64).reshape(-1, 2),
        np.array([each.kind == "positive" for each in points], dtype=np.int64),
        np.array(boxes[0].corners_rc, dtype=np.int64) if boxes else None,
    )
