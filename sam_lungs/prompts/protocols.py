"""Prompts of one slice, and named protocols that define which prompts a slice gets.

The protocols are those of Gutiérrez et al. 2024, doi 10.1109/ACCESS.2024.3353142.
"""

from dataclasses import dataclass

import numpy as np

POINTS = ("inside", "centroid", "contours", "contours_centroid", "none")
NEGATIVES = ("box_center", "none", "slice_center")


@dataclass(frozen=True)
class PromptProtocol:
    """Which prompts a slice gets. The defaults are the paper's.

    points: `inside`: one positive point per label, moved from the centroid into the label;
        `centroid`: one per label, at the centroid even if that is outside the label;
        `contours`: one per region of a label whose holes are filled, moved from the region's
        centroid into the label; `contours_centroid`: the same, not moved; `none`: none.
    negative: `box_center`, `none`, `slice_center`, or the (row, column) of each negative point,
        which must be pixels of the slice.
    negative_offset_rows: rows to move a negative point at a centre down; it stops at the image
        border.
    box: whether the box is given.
    every: prompts are drawn in every so many slices of an object and interpolated between them, see
        `prompts.volume`; 1: in all of them.
    """

    points: str = "inside"
    negative: str | tuple[tuple[int, int], ...] = "box_center"
    negative_offset_rows: int = 0
    box: bool = True
    every: int = 1

    @property
    def kinds(self) -> frozenset[str]:
        """The kinds of its prompts, of "points", "negative" and "box"."""
        given = {
            "points": self.points != "none",
            "negative": self.negative != "none",
            "box": self.box,
        }
        return frozenset(kind for kind in given if given[kind])


# `paper` is the paper's method; the paper compares it with the others. Names with `points` mean
# positive points only: no negative point, no box. `box_only` is not in the paper: some models were
# trained with boxes only.
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
    "slice_center": PromptProtocol(negative="slice_center"),
    "contours_centroid": PromptProtocol(points="contours_centroid"),
    "box_only": PromptProtocol(points="none", negative="none"),
}


@dataclass(frozen=True, eq=False)
class Prompts:
    """The prompts of one object in one slice, in pixels of the slice.

    points_rc: (points, 2) int, (row, column); (0, 2) without points.
    labels: (points,) int, 1 for a positive point and 0 for a negative one.
    box_rc: (4,) int, (top row, left column, bottom row, right column), where bottom and right are
        one past the last row and column; None without a box.
    """

    points_rc: np.ndarray
    labels: np.ndarray
    box_rc: np.ndarray | None

    @property
    def points_xy(self) -> np.ndarray:
        """The points as (points, 2), (column, row)."""
        return self.points_rc[:, ::-1]

    @property
    def interactions(self) -> int:
        """How often a user has to click: once per point, and for two corners of the box."""
        return len(self.points_rc) + (0 if self.box_rc is None else 2)

    @property
    def box_xyxy(self) -> np.ndarray | None:
        """The box as (4,), (left, top, right, bottom), or None."""
        return None if self.box_rc is None else self.box_rc[[1, 0, 3, 2]]
