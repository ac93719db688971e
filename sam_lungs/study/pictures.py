"""Pictures of slices with their prompts, reference masks and predicted masks."""

from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from nibabel import orientations
from nibabel.affines import apply_affine

from sam_lungs.data.volume import Geometry
from sam_lungs.prompts.protocols import Prompts
from sam_lungs.segmenters.base import Prediction
from sam_lungs.study.metrics import dice
from sam_lungs.study.options import LAYERS
from sam_lungs.utils.files import atomic_write

# The directions of rows and columns in an upright picture, by the direction of the slices.
UPRIGHT_CODES = {"S": "PL", "I": "PL", "A": "IL", "P": "IL", "L": "IP", "R": "IP"}

PREDICTED_RGBA = (0.12, 0.56, 1.0, 0.5)
# Of slices at least twice as large, only every second, third, ... row and column is drawn: pictures
# have no more pixels, and matplotlib needs over 100 bytes for each pixel of a slice.
PICTURE_PIXELS = 1024
# Readable also where a report shows the picture at a third of its size.
TITLE_POINTS = 20


def save_prediction(
    path: Path,
    image_rgb: np.ndarray,
    masks: np.ndarray,
    prompts: Sequence[Prompts],
    prediction: Prediction,
    geometry: Geometry | None,
    layers: Collection[str] = LAYERS,
) -> None:
    """Draw one slice as PNG, with these layers over it.

    mask: the predicted mask, translucent blue; the title is its Dice score, of all labels together,
    and the predicted IoU, as far as they are known.
    contours: those of the reference masks, green. points: positive ones are green stars, negative
    ones red stars. box: orange.

    image_rgb: (rows, columns, 3) uint8; masks: (rows, columns) of labels. prompts: one, or one per
        object.
    geometry: turns the picture upright and sets its aspect; None leaves it as stored.

    Raises `InputError` when it cannot be written.
    """
    figure = Figure(figsize=(7, 7), dpi=130)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_prediction(axes, image_rgb, masks, prompts, prediction.mask, geometry, layers)
    if "mask" in layers:
        axes.set_title(_title(prediction, masks), fontsize=TITLE_POINTS)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, bbox_inches="tight")


def _title(prediction: Prediction, masks: np.ndarray) -> str:
    """Return the scores of a prediction; no Dice score without a reference mask in the slice."""
    scores = []
    if masks.any():
        scores.append(f"Dice {dice(prediction.mask, masks != 0):.4f}")
    if not np.isnan(prediction.predicted_iou):
        scores.append(f"predicted IoU {prediction.predicted_iou:.4f}")
    return ", ".join(scores)


def draw_prediction(
    axes: Axes,
    image_rgb: np.ndarray,
    masks: np.ndarray,
    prompts: Sequence[Prompts],
    predicted: np.ndarray,
    geometry: Geometry | None,
    layers: Collection[str] = LAYERS,
    marker_size: float = 16,
) -> None:
    """Draw one slice onto axes, as `save_prediction` does.

    image_rgb: (rows, columns, 3) uint8; masks: (rows, columns) of labels; predicted: (rows,
        columns) bool.
    geometry: turns the picture upright and sets its aspect; None leaves it as stored.
    layers: what is drawn over the slice. marker_size: of the points, in typographic points.
    """
    axes_map = upright(geometry)
    to_picture = np.linalg.inv(orientations.inv_ornt_aff(axes_map, masks.shape))
    step = max(1, min(masks.shape) // PICTURE_PIXELS)
    image_rgb, masks, predicted = (
        orientations.apply_orientation(array, axes_map)[::step, ::step]
        for array in (image_rgb, masks, predicted)
    )
    # In pixels of the whole slice. A drawn pixel is around the one that it is taken of.
    rows, columns = (step * np.arange(-1, size + 1) for size in masks.shape)
    extent = [
        columns[1] - step / 2,
        columns[-1] - step / 2,
        rows[-1] - step / 2,
        rows[1] - step / 2,
    ]
    drawn = [image_rgb]
    if "mask" in layers:
        drawn.append(predicted[..., None] * np.array(PREDICTED_RGBA))
    for layer in drawn:
        axes.imshow(layer, extent=extent, aspect=pixel_aspect(geometry), interpolation="nearest")
    if "contours" in layers:
        # Padded with background, so that contours at the border of the slice are closed.
        framed = np.pad(masks, 1)
        for label in np.unique(masks[masks != 0]):
            style = {"levels": [0.5], "colors": "lime", "linewidths": 1.2}
            axes.contour(columns, rows, framed == label, **style)
    star = {"marker": "*", "markersize": marker_size, "markeredgecolor": "white"}
    frame = {"fill": False, "edgecolor": "orange", "linewidth": 2, "clip_on": False}
    for each in prompts:
        if "points" in layers and len(each.labels):
            points_rc = apply_affine(to_picture, each.points_rc)
            for (row, column), label in zip(points_rc, each.labels, strict=True):
                color = "limegreen" if label else "red"
                axes.plot(column, row, color=color, clip_on=False, **star)
        if "box" in layers and each.box_rc is not None:
            # The lower right corner of the box is excluded. Pixels end at half indices.
            corners_rc = apply_affine(to_picture, each.box_rc.reshape(2, 2) - 0.5)
            (top, left), (bottom, right) = corners_rc.min(axis=0), corners_rc.max(axis=0)
            axes.add_patch(Rectangle((left, top), right - left, bottom - top, **frame))
    axes.set_axis_off()


def upright(geometry: Geometry | None) -> np.ndarray:
    """Return the orientation of rows and columns in the picture, (2, 2), as nibabel defines it."""
    if geometry is None or not geometry.is_oriented:
        return np.array([[0, 1], [1, 1]])
    stored = geometry.orientation
    turned = UPRIGHT_CODES[stored[2]] + stored[2]
    turns = orientations.ornt_transform(*map(orientations.axcodes2ornt, (stored, turned)))
    return turns[:2].astype(int)


def pixel_aspect(geometry: Geometry | None) -> float:
    """Return the height of a pixel in the upright picture divided by its width."""
    if geometry is None:
        return 1
    spacing_mm = np.array(geometry.spacing_mm)[np.argsort(upright(geometry)[:, 0])]
    return spacing_mm[0] / spacing_mm[1]
