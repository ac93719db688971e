"""Clicks at every position of a grid, for maps of how well a click works."""

from collections.abc import Collection
from dataclasses import replace

import numpy as np

from sam_lungs.prompts.protocols import Prompts


def click_grid(
    box_rc: np.ndarray, margin_px: int, step_px: int, size_rc: tuple[int, int]
) -> np.ndarray:
    """Return the positions of a grid over a box and a margin around it.

    box_rc: (top, left, bottom, right), where bottom and right are one past the box; it has at
        least one pixel of the slice. size_rc: (rows, columns) of the slice.

    The slice is divided into blocks of step_px x step_px pixels from its first pixel, so that the
    positions are the same for all boxes, slices and objects. Returned is the middle of each
    block that meets the box and margin: the pixel at step_px // 2, or the last pixel of the slice
    if a block ends before it. A position stands for its block.

    Returns (positions, 2) int, (row, column) in row-major order: a full grid of rows x columns.
    """
    axes = []
    for first, end, size in zip(box_rc[:2], box_rc[2:], size_rc, strict=True):
        first, end = max(first - margin_px, 0), min(end + margin_px, size)
        blocks = np.arange(first // step_px, (end - 1) // step_px + 1)
        axes.append(np.minimum(blocks * step_px + step_px // 2, size - 1))
    return np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)


def click_alone(point_rc: np.ndarray, label: int = 1) -> Prompts:
    """Return prompts of one point, (row, column), and no box. label: 1 positive, 0 negative."""
    return Prompts(np.array([point_rc]), np.array([label]), None)


def with_click(
    prompts: Prompts, point_rc: np.ndarray, label: int = 1, replaced: Collection[int] | None = None
) -> Prompts:
    """Return prompts with one point in place of others.

    point_rc: (row, column) of the new point. label: 1 positive, 0 negative.
    replaced: indices of the points to replace, such as those of one object; by default all points
        of this label.

    The new point takes the place of the first of them. If there are none it comes first if it is
    positive, and last if it is negative. The other points and the box stay.
    """
    old = np.flatnonzero(prompts.labels == label) if replaced is None else np.sort([*replaced])
    kept = np.setdiff1d(np.arange(len(prompts.labels)), old)
    place = old[0] if len(old) else (1 - label) * len(kept)
    return replace(
        prompts,
        points_rc=np.insert(prompts.points_rc[kept], place, point_rc, axis=0),
        labels=np.insert(prompts.labels[kept], place, label),
    )
