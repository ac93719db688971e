"""Checks whether masks fit their image: how much of the body they are, and in which position."""

import cv2
import numpy as np

from sam_lungs.data.plausibility import Finding, sampled_slices
from sam_lungs.data.volume import Volume
from sam_lungs.data.windowing import Window

# Share of the masks in masks and tissue together. Measured: at most 51 % for lungs, 40 % for a map
# of 31 organs; 100 % for a map of the whole body.
MOST_COVERAGE = 0.75
# Mean difference of the displayed values across the border of the masks, of the displayed range.
# Measured on CT: masks as they are 0.27 to 0.73, turned in another way at most half of that; other
# organs than lungs at most 0.11 in any position.
CLEAR_BORDER = 0.15
CLEARER_BORDER = 1.5


def check_coverage(image: Volume, masks: Volume, window: Window | None) -> Finding | None:
    """Return a warning when the masks are most of the body, as in maps of all organs."""
    chosen = sampled_slices(masks.array)
    grey = (_displayed(image.array[:, :, chosen], window) * 255).astype(np.uint8)
    # Otsu's threshold separates air and lung from tissue in any unit.
    is_tissue = grey > cv2.threshold(grey.reshape(1, -1), 0, 255, cv2.THRESH_OTSU)[0]
    is_masked = masks.array[:, :, chosen] != 0
    coverage = is_masked.sum() / (is_masked | is_tissue).sum()
    if coverage <= MOST_COVERAGE or not is_tissue.any():
        return None
    message = (
        f"masks cover {coverage:.0%} of the body; choose the labels of the lungs with --labels"
    )
    return Finding("coverage", f"{masks.path}: {message}")


def check_fit(image: Volume, masks: Volume, window: Window | None) -> Finding | None:
    """Return a warning when transposed or flipped masks would fit the image much better."""
    chosen = sampled_slices(masks.array)
    values = _displayed(image.array[:, :, chosen], window)
    labels = masks.array[:, :, chosen] != 0
    turned = labels.swapaxes(0, 1)
    changes = {
        "with their columns flipped": labels[:, ::-1],
        "with their rows flipped": labels[::-1],
        "with their rows and columns flipped": labels[::-1, ::-1],
        "with their slices flipped": masks.array[:, :, ::-1][:, :, chosen] != 0,
        "transposed": turned,
        "rotated by 90 degrees": turned[::-1],
        "rotated by 270 degrees": turned[:, ::-1],
        "transposed and rotated by 180 degrees": turned[::-1, ::-1],
    }
    contrasts = {
        name: _border_contrast(values, changed)
        for name, changed in changes.items()
        if changed.shape == values.shape
    }
    best = max(contrasts, key=contrasts.get)
    if contrasts[best] < max(CLEAR_BORDER, CLEARER_BORDER * _border_contrast(values, labels)):
        return None
    message = f"{masks.path}: masks {best} would fit the image better; check their voxel order"
    return Finding("flipped" if "flipped" in best else "transposed", message)


def _displayed(values: np.ndarray, window: Window | None) -> np.ndarray:
    """Return values as they are displayed, float32 from 0 to 1."""
    low, high = window.range_hu if window else (float(values.min()), float(values.max()))
    return (values.astype(np.float32).clip(low, high) - low) / max(high - low, 1e-9)


def _border_contrast(values: np.ndarray, is_masked: np.ndarray) -> float:
    """Return the mean difference of values one pixel inside and one outside the masks' border.

    Pairs are three pixels apart along a row or a column.
    """
    differences = []
    for axis in (0, 1):
        along = np.moveaxis(values, axis, 0)
        is_border = np.diff(np.moveaxis(is_masked, axis, 0)[1:-1], axis=0)
        differences.append(np.abs(along[3:] - along[:-3])[is_border])
    return float(np.concatenate(differences).mean()) if any(map(len, differences)) else 0.0
