"""The requested metrics of a slice and of a volume, by the names of their columns."""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sam_lungs.data.case import Case
from sam_lungs.data.volume import Volume
from sam_lungs.study.metrics import click_agreement, dice
from sam_lungs.study.options import MeasurementOptions
from sam_lungs.study.pipeline import SegmentedSlice
from sam_lungs.study.results import lung_slices_dice
from sam_lungs.study.surfaces import surface_agreement


def measure_slice(
    segmented: SegmentedSlice, number: int, image: Volume, options: MeasurementOptions
) -> dict[str, float]:
    """Return the surface and click metrics of the prediction for prompts `number` of a slice."""
    measured = {}
    if options.measures("nsd", "hd95"):
        measured |= _surface_metrics(
            segmented.masks[number],
            segmented.prompted.masks != 0,
            image.geometry.spacing_mm[:2],
            options,
            "",
        )
    if options.one_click:
        measured |= click_agreement(segmented.click_masks[number], segmented.prompted.masks)
    return measured


def measure_volume(
    predicted: np.ndarray, case: Case, table: pd.DataFrame, options: MeasurementOptions
) -> dict[str, float]:
    """Return the metrics of a whole volume.

    predicted: (rows, columns, slices), 0 outside the predicted masks; read only for metrics in 3-D.
    table: of the volume's slices, see `results.slices_table`.
    """
    measured = {}
    if options.measures("lung_slices_dice"):
        measured["lung_slices_dice"] = lung_slices_dice(table)
    reference = case.masks.array != 0
    if options.measures("dice_3d"):
        measured["dice_3d"] = dice(predicted != 0, reference)
    if options.measures("nsd_3d", "hd95_3d"):
        spacing_mm = case.image.geometry.spacing_mm
        measured |= _surface_metrics(predicted != 0, reference, spacing_mm, options, "3d_")
    return measured


def _surface_metrics(
    predicted: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    options: MeasurementOptions,
    infix: str,
) -> dict[str, float]:
    """Compare the surfaces of two masks; the names of metrics in 3-D have the infix `3d_`.

    The reference is not empty. Of an empty prediction the penalised distance is the diagonal of the
    masks' array: no distance between two of its points is larger.
    """
    suffix = infix and "_3d"
    agreement = surface_agreement(predicted, reference, spacing_mm, options.tolerance_mm)
    measured = {}
    if options.measures(f"nsd{suffix}"):
        for tolerance_mm, nsd in zip(options.tolerance_mm, agreement.nsd, strict=True):
            measured[f"nsd_{infix}{tolerance_mm:g}mm"] = nsd
    if options.measures(f"hd95{suffix}"):
        sides_mm = np.multiply(reference.shape, spacing_mm)
        distance_mm = agreement.hd95_mm
        measured[f"hd95_{infix}mm"] = distance_mm
        measured[f"hd95_{infix}penalised_mm"] = (
            math.hypot(*sides_mm) if math.isnan(distance_mm) else distance_mm
        )
    return measured
