"""Label mask of one slice -> points and box, by the rules of the paper.

Gutiérrez et al. 2024, doi 10.1109/ACCESS.2024.3353142.
"""

from collections.abc import Iterator

import cv2
import numpy as np

from sam_lungs.prompts.protocols import PromptProtocol, Prompts


def make_prompts(masks: np.ndarray, protocol: PromptProtocol) -> Prompts:
    """Return the prompts of one slice.

    masks: (rows, columns) integer labels, 0 for background; at least one pixel is not background.
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
    """Yield a boolean mask for each region that gets a positive point."""
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
    """Move a pixel of the region to the middle of its run of pixels along the row or the column.

    The longer of the two runs is used; the column's if they are equally long.
    """
    left, right = _run(region[row], column)
    above, below = _run(region[:, column], row)
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
    region: np.ndarray, row: int, column: int, pixels_rc: np.ndarray, centroid_rc: np.ndarray
) -> tuple[int, int]:
    """Return a pixel of the region for a centroid that lies outside it.

    Count the region's pixels to the left, right, above and below. Return the middle pixel of the
    direction with the most pixels; in a tie, of the first in this order. If all are 0, return the
    region's pixel that is nearest to the centroid.
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
    """Return (top, left, bottom, right), where bottom and right are one past the mask."""
    pixels_rc = np.argwhere(mask)
    return np.concatenate([pixels_rc.min(axis=0), pixels_rc.max(axis=0) + 1])
