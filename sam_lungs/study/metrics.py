"""Agreement of a predicted mask with the reference mask: pure functions of two masks."""

import warnings
from typing import NamedTuple

import numpy as np

# Every table of slices has METRICS; `--metrics` adds the others.
METRICS = ("jaccard", "dice")
SURFACE_METRICS = ("nsd", "hd95_mm")
CLICK_METRICS = tuple(
    f"{metric}_{mask}" for mask in ("mask_1", "mask_2", "mask_3", "oracle") for metric in METRICS
)
ALL_METRICS = (*METRICS, *SURFACE_METRICS, *CLICK_METRICS)


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
    return Overlap(*map(np.count_nonzero, (predicted, reference, predicted & reference)))


def jaccard(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Return the Jaccard index of two boolean masks of one shape; NaN when both are empty."""
    return overlap(predicted, reference).jaccard


def dice(predicted: np.ndarray, reference: np.ndarray) -> float:
    """Return the Dice score of two boolean masks of one shape; NaN when both are empty."""
    return overlap(predicted, reference).dice


class SurfaceAgreement(NamedTuple):
    """nsd: normalized surface Dice, 0..1; hd95_mm: 95 % Hausdorff distance in mm."""

    nsd: float
    hd95_mm: float


def surface_agreement(
    predicted: np.ndarray,
    reference: np.ndarray,
    spacing_mm: tuple[float, float],
    tolerance_mm: float,
) -> SurfaceAgreement:
    """Compare the outlines of two boolean masks (rows, columns).

    spacing_mm: distance between neighbouring rows and columns. tolerance_mm: distance between
    outlines that still counts as agreement.

    Both are computed by MONAI. For `nsd` outlines run between pixels (Nikolov et al. 2021, doi
    10.2196/26151), for `hd95_mm` through the centres of the outermost pixels. When one mask is
    empty, `nsd` is 0 and `hd95_mm` is NaN; when both are, both are NaN.
    """
    empty = [not mask.any() for mask in (predicted, reference)]
    if any(empty):
        return SurfaceAgreement(float("nan") if all(empty) else 0.0, float("nan"))
    # Imported here, because both imports take seconds and only these metrics need them.
    import torch
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    masks = [torch.from_numpy(mask)[None, None] for mask in (predicted, reference)]
    options = {"include_background": True, "spacing": list(spacing_mm)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # from MONAI's own code
        nsd = compute_surface_dice(*masks, [tolerance_mm], use_subvoxels=True, **options)
        hd95_mm = compute_hausdorff_distance(*masks, percentile=95, **options)
    return SurfaceAgreement(nsd.item(), hd95_mm.item())


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
