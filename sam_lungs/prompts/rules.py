"""Label mask of one slice -> points and box, by the rules of the paper.

Gutiérrez et al. 2024, doi 10.1109/ACCESS.2024.3353142.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from sam_lungs.prompts.protocols import PromptProtocol, Prompts


class PromptParts(NamedTuple):
    """The prompts of one object in one slice, by where they come from; (row, column) pixels.

    points_rc: {label: (points, 2) int}, the positive points of each label, in the order of the
        labels. negatives_rc: (points, 2) int. box_rc: as `Prompts.box_rc`.
    """

    points_rc: dict[int, np.ndarray]
    negatives_rc: np.ndarray
    box_rc: np.ndarray | None

    @property
    def joined(self) -> Prompts:
        """The prompts as a model takes them, the positive points first."""
        positives_rc = np.concatenate([*self.points_rc.values(), _points([])])
        labels = np.repeat([1, 0], [len(positives_rc), len(self.negatives_rc)])
        return Prompts(np.concatenate([positives_rc, self.negatives_rc]), labels, self.box_rc)


def make_prompts(masks: np.ndarray, protocol: PromptProtocol) -> Prompts:
    """Return the prompts of one slice, all labels together.

    masks: (rows, columns) integer labels, 0 for background; at least one pixel is not background.
    """
    return make_parts(masks, protocol).joined


def make_parts(masks: np.ndarray, protocol: PromptProtocol) -> PromptParts:
    """Return the parts of `make_prompts`."""
    points_rc = {}
    for label in np.unique(masks[masks != 0]).tolist():
        of_label = masks == label
        points_rc[label] = _points(
            [
                _point(of_label, centroid_rc, protocol.points)
                for centroid_rc in _centroids(of_label, protocol.points)
            ]
        )
    box_rc = _bounding_box(masks != 0)
    negatives_rc = _points(_negatives(masks.shape, box_rc, protocol))
    return PromptParts(points_rc, negatives_rc, box_rc if protocol.box else None)


def _points(points_rc: Sequence[tuple[int, int]]) -> np.ndarray:
    return np.array(points_rc, dtype=np.int64).reshape(-1, 2)


def _negatives(
    size_rc: tuple[int, int], box_rc: np.ndarray, protocol: PromptProtocol
) -> Sequence[tuple[int, int]]:
    if protocol.negative == "none":
        return []
    if protocol.negative == "box_center":
        row, column = box_rc[:2] + (box_rc[2:] - box_rc[:2]) // 2
    elif protocol.negative == "slice_center":
        row, column = (size // 2 for size in size_rc)
    else:
        return protocol.negative
    return [(np.clip(row + protocol.negative_offset_rows, 0, size_rc[0] - 1), column)]


def _centroids(of_label: np.ndarray, points: str) -> Sequence[Sequence[float]]:
    """Return the (row, column) of the label's centroid, or of the centroids of its regions.

    A region is 4-connected after the label's holes are filled.
    """
    if points == "none":
        return []
    if not points.startswith("contours"):
        return [np.argwhere(of_label).mean(axis=0)]
    filled = ndimage.binary_fill_holes(of_label)
    regions, count = ndimage.label(filled)
    return ndimage.center_of_mass(filled, regions, range(1, count + 1))


def _point(of_label: np.ndarray, centroid_rc: Sequence[float], points: str) -> tuple[int, int]:
    row, column = (int(coordinate) for coordinate in centroid_rc)
    if points.endswith("centroid"):
        return row, column
    if not of_label[row, column]:
        row, column = _step_onto(of_label, row, column, centroid_rc)
    return _slide_to_middle(of_label, row, column)


def _slide_to_middle(of_label: np.ndarray, row: int, column: int) -> tuple[int, int]:
    """Move a pixel of the label to the middle of its run of pixels along the row or the column.

    The longer of the two runs is used; the column's if they are equally long.
    """
    left, right = _run(of_label[row], column)
    above, below = _run(of_label[:, column], row)
    if left + right > above + below:
        return row, column + (right - left + 1) // 2
    return row + (below - above + 1) // 2, column


def _run(line: np.ndarray, index: int) -> tuple[int, int]:
    """Return how many pixels directly before and directly after `index` are True."""
    gaps = np.flatnonzero(~line)
    after = np.searchsorted(gaps, index)
    first = gaps[after - 1] + 1 if after > 0 else 0
    last = gaps[after] - 1 if after < len(gaps) else len(line) - 1
    return int(index - first), int(last - index)


def _step_onto(
    of_label: np.ndarray, row: int, column: int, centroid_rc: Sequence[float]
) -> tuple[int, int]:
    """Return a pixel of the label for a centroid that lies outside it.

    Count the label's pixels to the left, right, above and below. Return the middle pixel of the
    direction with the most pixels; in a tie, of the first in this order. If all are 0, return the
    label's pixel that is nearest to the centroid; the authors take a random one.
    """
    columns = np.flatnonzero(of_label[row])
    rows = np.flatnonzero(of_label[:, column])
    directions = [
        [(row, other) for other in columns[columns < column]],
        [(row, other) for other in columns[columns > column]],
        [(other, column) for other in rows[rows < row]],
        [(other, column) for other in rows[rows > row]],
    ]
    most = max(directions, key=len)
    if most:
        return tuple(int(coordinate) for coordinate in most[len(most) // 2])
    pixels_rc = np.argwhere(of_label)
    nearest = np.argmin(((pixels_rc - centroid_rc) ** 2).sum(axis=1))
    return tuple(int(coordinate) for coordinate in pixels_rc[nearest])


def _bounding_box(mask: np.ndarray) -> np.ndarray:
    """Return (top, left, bottom, right), where bottom and right are one past the mask."""
    pixels_rc = np.argwhere(mask)
    return np.concatenate([pixels_rc.min(axis=0), pixels_rc.max(axis=0) + 1])
