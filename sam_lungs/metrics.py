"""How well a predicted mask agrees with the true one: pure functions of two masks."""

from typing import NamedTuple

import numpy as np


class Overlap(NamedTuple):
    """Areas of a predicted and a true mask, and of what they share, in pixels."""

    predicted: int
    true: int
    common: int

    @property
    def jaccard(self) -> float:
        """The Jaccard index, intersection over union; NaN when both masks are empty."""
        union = self.predicted + self.true - self.common
        return self.common / union if union else float("nan")

    @property
    def dice(self) -> float:
        """The Dice score, twice the intersection over the sum of areas; NaN when both are empty."""
        area = self.predicted + self.true
        return 2 * self.common / area if area else float("nan")


def overlap(predicted: np.ndarray, true: np.ndarray) -> Overlap:
    """Compare two boolean masks of one shape."""
    return Overlap(*(np.count_nonzero(mask) for mask in (predicted, true, predicted & true)))


def jaccard(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the Jaccard index, intersection over union, of two boolean masks of one shape.

    NaN when both masks are empty: there is nothing to agree on.
    """
    return overlap(predicted, true).jaccard


def dice(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the Dice score, twice the intersection over the sum of areas, of two boolean masks.

    NaN when both masks are empty: there is nothing to agree on.
    """
    return overlap(predicted, true).dice
