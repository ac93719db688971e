"""Names of the metrics, and the agreement of a predicted mask with the reference mask."""

import re
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

# Every table of slices has METRICS; `--metrics` adds the others.
METRICS = ("jaccard", "dice")
CLICK_METRICS = tuple(
    f"{metric}_{mask}" for mask in ("mask_1", "mask_2", "mask_3", "oracle") for metric in METRICS
)
_SURFACE_METRIC = r"(nsd_{0}[\d.e+-]+mm|hd95_{0}mm|hd95_{0}penalised_mm)"
SLICE_METRIC = re.compile("|".join([*METRICS, *CLICK_METRICS, _SURFACE_METRIC.format("")]))
VOLUME_METRIC = re.compile(f"lung_slices_dice|dice_3d|{_SURFACE_METRIC.format('3d_')}")


def metrics_in(columns: Iterable[str]) -> list[str]:
    """Return the metrics of slices among the names of columns, in their order."""
    return [name for name in columns if SLICE_METRIC.fullmatch(name)]


def volume_metrics_in(columns: Iterable[str]) -> list[str]:
    """Return the metrics of whole volumes among the names of columns, in their order."""
    return [name for name in columns if VOLUME_METRIC.fullmatch(name)]


class Overlap(NamedTuple):
    """Areas of a predicted mask, of the reference mask, and of their intersection, in pixels."""

    predicted: int
    reference: int
    intersection: int

    @property
    def jaccard(self) -> float:
        """The Jaccard index, intersection over union; NaN when both masks are empty."""
        union = self.predicted + self.reference - self.intersection
        return self.intersection / union if union else float("nan")

    @property
    def dice(self) -> float:
        """The Dice score, twice the intersection over the sum of areas; NaN when both are empty."""
        area = self.predicted + self.reference
        return 2 * self.intersection / area if area else float("nan")


def overlap(predicted: np.ndarray, reference: np.ndarray) -> Overlap:
    """Compare two boolean masks of one shape."""
    masks = predicted, reference, predicted & reference
    return Overlap(*(int(np.count_nonzero(mask)) for mask in masks))


def jaccard(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Return the Jaccard index of two boolean masks of one shape; NaN when both are empty."""
    return overlap(predicted, reference).jaccard


def dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Return the Dice score of two boolean masks of one shape; NaN when both are empty."""
    return overlap(predicted, reference).dice


def click_agreement(masks: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Compare the three masks that a model predicts for one click on each object of a slice.

    masks: (objects, 3, rows, columns) bool, in the order of the labels. labels: (rows, columns)
        integer reference labels, 0 for background.

    Returns `CLICK_METRICS`. `mask_1` is the union of the objects' first masks, and so on. `oracle`
    is the union of the mask of each object with the best Dice score, the first of equal ones.
    """
    objects = np.unique(labels[labels != 0])
    best = [
        max(three, key=lambda mask, label=label: dice(mask, labels == label))
        for three, label in zip(masks, objects, strict=True)
    ]
    overlaps = [overlap(mask, labels != 0) for mask in (*masks.any(0), np.any(best, 0))]
    values = [getattr(each, metric) for each in overlaps for metric in METRICS]
    return dict(zip(CLICK_METRICS, values, strict=True))
