"""How well a predicted mask agrees with the true one: pure functions of two masks."""

import warnings
from typing import NamedTuple

import numpy as np
import torch


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


class SurfaceAgreement(NamedTuple):
    """nsd: normalized surface Dice, 0..1; hd95_mm: 95 % Hausdorff distance in mm."""

    nsd: float
    hd95_mm: float


def surface_agreement(
    predicted: np.ndarray,
    true: np.ndarray,
    spacing_mm: tuple[float, float],
    tolerance_mm: float,
) -> SurfaceAgreement:
    """Compare the outlines of two boolean masks (rows, columns).

    spacing_mm: between neighbouring rows and columns. tolerance_mm: how far outlines may lie apart
    and still count as agreeing.

    Both are MONAI's: of the first outlines run between pixels (Nikolov et al. 2021, doi
    10.2196/26151), of the second through the outermost pixels' centres. When one mask is empty
    `nsd` is 0 and `hd95_mm` NaN, because no distance leads to nothing; when both are, both are NaN.
    """
    empty = [not mask.any() for mask in (predicted, true)]
    if any(empty):
        return SurfaceAgreement(float("nan") if all(empty) else 0.0, float("nan"))
    # Takes seconds to import, which only these metrics need.
    from monai.metrics import compute_hausdorff_distance, compute_surface_dice

    masks = [torch.from_numpy(mask)[None, None] for mask in (predicted, true)]
    alike = {"include_background": True, "spacing": list(spacing_mm)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's, of how it calls itself
        nsd = compute_surface_dice(*masks, [tolerance_mm], use_subvoxels=True, **alike)
        hd95_mm = compute_hausdorff_distance(*masks, percentile=95, **alike)
    return SurfaceAgreement(nsd.item(), hd95_mm.item())
