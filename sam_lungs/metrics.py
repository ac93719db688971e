"""How well a predicted mask agrees with the true one: pure functions of two masks."""

import numpy as np


def jaccard(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the Jaccard index, intersection over union, of two boolean masks of one shape.

    NaN when both masks are empty: there is nothing to agree on.
    """
    union = np.count_nonzero(predicted | true)
    return np.count_nonzero(predicted & true) / union if union else float("nan")


def dice(predicted: np.ndarray, true: np.ndarray) -> float:
    """Return the Dice score, twice the intersection over the sum of areas, of two boolean masks.

    NaN when both masks are empty: there is nothing to agree on.
    """
    area = np.count_nonzero(predicted) + np.count_nonzero(true)
    return 2 * np.count_nonzero(predicted & true) / area if area else float("nan")
