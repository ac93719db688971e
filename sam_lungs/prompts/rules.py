"""A slice's lung masks -> the points and the box that SAM is prompted with.

The rules are those of Gutiérrez et al. 2024, doi 10.1109/ACCESS.2024.3353142.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

POINTS = ("inside", "centroid", "contours")
NEGATIVES = ("box_center", "none")


@dataclass(frozen=True)
class PromptProtocol:
    """Which prompts a slice gets; the defaults are the paper's.

    points: `inside`, one per label, slid inside it from its centroid; `centroid`, one per label,
        left where the centroid falls; `contours`, one per connected region, slid inside it.
    negative: `box_center` or `none`.
    negative_offset_rows: rows that the negative point moves down, at most to the image's border.
    box: whether the box is given.
    """

    points: str = "inside"
    negative: str = "box_center"
    negative_offset_rows: int = 0
    box: bool = True


# The paper's, and what it compares it with; those of `points` have no negative point and no box.
PROTOCOLS = {
    "paper": PromptProtocol(),
    "no_box": PromptProtocol(box=False),
    "no_negative": PromptProtocol(negative="none"),
    "points": PromptProtocol(negative="none", box=False),
    "negative_45": PromptProtocol(negative_offset_rows=45),
    "negative_45_no_box": PromptProtocol(negative_offset_rows=45, box=False),
    "centroid": PromptProtocol(points="centroid"),
    "centroid_no_box": PromptProtocol(points="centroid", box=False),
    "centroid_points": PromptProtocol(points="centroid", negative="none", box=False),
    "contours": PromptProtocol(points="contours"),
    "contours_no_box": PromptProtocol(points="contours", box=False),
    "contours_points": PromptProtocol(points="contours", negative="none", box=False),
    "negative_15": PromptProtocol(negative_offset_rows=15),
    "negative_30": PromptProtocol(negative_offset_rows=30),
    "negative_60": PromptProtocol(negative_offset_rows=60),
}


@dataclass(frozen=True, eq=False)
class Prompts:
    """What SAM is told about one slice, in pixels.

    points_rc: (points, 2) int, (row, column); labels: (points,) int, 1 positive and 0 negative.
    box_rc: (4,) int, row and column of the upper left corner, then of the lower right one, which
        lies one past the last row and column; `None` when no box is given.
    """

    points_rc: np.ndarray
    labels: np.ndarray
    box_rc: np.ndarray | None


def make_prompts(masks: np.ndarray, protocol: PromptProtocol) -> Prompts:
    """Return the prompts of one slice.

    masks: (rows, columns) of labels, 0 background, not all of it.
    """
    positives = [_point(region, protocol.points) for region in _regions(masks, protocol.points)]
    box_rc = _bounding_box(masks != 0)
    negatives = []
    if protocol.negative == "box_center":
        (row, column) = box_rc[:2] + (box_rc[2:] - box_rc[:2]) // 2
        row = np.clip(row + protocol.negative_offset_rows, 0, masks.shape[0] - 1)
        negatives = [(row, column)]
    return Prompts(
        points_rc=np.array(positives + negatives, dtype=np.int64),
        labels=np.array([1] * len(positives) + [0] * len(negatives), dtype=np.int64),
        box_rc=box_rc if protocol.box else None,
    )


def _regions(masks: np.ndarray, points: str) -> Iterator[np.ndarray]:
    """Yield a boolean mask for everything that gets a positive point."""
    for label in np.unique(masks[masks != 0]):
        of_label = masks == label
        if points != "contours":
            yield of_label
            continue
        count, components = cv2.connectedComponents(of_label.astype(np.uint8), connectivity=8)
        for component in range(1, count):
            yield components == component


def _point(region: np.ndarray, points: str) -> tuple[int, int]:
    pixels_rc = np.argwhere(region)
    centroid_rc = pixels_rc.mean(axis=0)
    row, column = (int(coordinate) for coordinate in centroid_rc)
    if points == "centroid":
        return row, column
    if not region[row, column]:
        row, column = _step_onto(region, row, column, pixels_rc, centroid_rc)
    return _slide_to_middle(region, row, column)


def _slide_to_middle(region: np.ndarray, row: int, column: int) -> tuple[int, int]:
    """Move a pixel of the region to the middle of its longer run, the column's when they tie."""
    left, right = _run(region[row], column)
    above, below = _run(region[:, column], row)
    if left + right > above + below:
        return row, column + (right - left + 1) // 2
    return row + (below - above + 1) // 2, column


def _run(line: np.ndarray, index: int) -> tuple[int, int]:
    """Count the unbroken pixels before and after the one at `index`."""
    gaps = np.flatnonzero(~line)
    after = np.searchsorted(gaps, index)
    first = gaps[after - 1] + 1 if after > 0 else 0
    last = gaps[after] - 1 if after < len(gaps) else len(line) - 1
    return int(index - first), int(last - index)


def _step_onto(
    region: np.ndarray, row: int, column: int, pixels_rc: np.ndarray, centroid_rc: np.ndarray
) -> tuple[int, int]:
    """From a pixel outside the region, find one of the region's to stand on.

    The middle one of those to the left, right, above or below, whichever are most, first in that
    order when they tie; where there are none, the region's pixel nearest to the centroid.
    """
    columns = np.flatnonzero(region[row])
    rows = np.flatnonzero(region[:, column])
    directions = [
        [(row, other) for other in columns[columns < column]],
        [(row, other) for other in columns[columns > column]],
        [(other, column) for other in rows[rows < row]],
        [(other, column) for other in rows[rows > row]],
    ]
    most = max(directions, key=len)
    if most:
        return tuple(int(coordinate) for coordinate in most[len(most) // 2])
    nearest = np.argmin(((pixels_rc - centroid_rc) ** 2).sum(axis=1))
    return tuple(int(coordinate) for coordinate in pixels_rc[nearest])


def _bounding_box(mask: np.ndarray) -> np.ndarray:
    pixels_rc = np.argwhere(mask)
    return np.concatenate([pixels_rc.min(axis=0), pixels_rc.max(axis=0) + 1])
