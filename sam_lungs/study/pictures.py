"""Pictures of what SAM was asked and what it answered."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from nibabel import orientations
from nibabel.affines import apply_affine

from sam_lungs.data.geometry import Geometry
from sam_lungs.prompts.rules import Prompts
from sam_lungs.utils.files import replacing

if TYPE_CHECKING:  # torch takes seconds to import, which only the prediction itself needs
    from sam_lungs.segmenters.sam import Prediction

# Where rows and columns grow towards in an upright picture, by the axis that the slices lie along.
UPRIGHT_CODES = {"S": "PL", "I": "PL", "A": "IL", "P": "IL", "L": "IP", "R": "IP"}

PREDICTED_RGBA = (0.12, 0.56, 1.0, 0.5)


def save_prediction(
    path: Path,
    image_rgb: np.ndarray,
    masks: np.ndarray,
    prompts: Prompts,
    prediction: "Prediction",
    geometry: Geometry | None,
) -> None:
    """Draw one slice as PNG: SAM's mask in translucent blue, the true contours in green,
    positive points as green stars, the negative one in red, the box in orange, SAM's score above.

    image_rgb: (rows, columns, 3) uint8; masks: (rows, columns) of labels.
    geometry: turns the picture upright and gives it its proportions; `None` leaves it as stored.

    Raises `InputError` when it cannot be written.
    """
    figure = Figure(figsize=(7, 7), dpi=130)
    axes = figure.add_axes((0, 0, 1, 1))
    draw_prediction(axes, image_rgb, masks, prompts, prediction.mask, geometry)
    axes.set_title(f"SAM's score: {prediction.score:.4f}")
    with replacing(path) as temporary:
        figure.savefig(temporary, bbox_inches="tight")


def draw_prediction(
    axes: Axes,
    image_rgb: np.ndarray,
    masks: np.ndarray,
    prompts: Prompts,
    predicted: np.ndarray,
    geometry: Geometry | None,
    marker_size: float = 16,
) -> None:
    """Draw one slice onto axes, as `save_prediction` does.

    image_rgb: (rows, columns, 3) uint8; masks: (rows, columns) of labels; predicted: (rows,
        columns) bool.
    geometry: turns the picture upright and gives it its proportions; `None` leaves it as stored.
    marker_size: of the points, in typographic points.
    """
    axes_map = upright(geometry)
    to_picture = np.linalg.inv(orientations.inv_ornt_aff(axes_map, masks.shape))
    image_rgb, masks, predicted = (
        orientations.apply_orientation(array, axes_map) for array in (image_rgb, masks, predicted)
    )
    axes.imshow(image_rgb, aspect=pixel_aspect(geometry), interpolation="nearest")
    axes.imshow(
        predicted[..., None] * np.array(PREDICTED_RGBA),
        aspect=axes.get_aspect(),
        interpolation="nearest",
    )
    for label in np.unique(masks[masks != 0]):
        _draw_contour(axes, masks == label)
    points_rc = apply_affine(to_picture, prompts.points_rc)
    for (row, column), label in zip(points_rc, prompts.labels, strict=True):
        axes.plot(
            column,
            row,
            marker="*",
            markersize=marker_size,
            color="limegreen" if label else "red",
            markeredgecolor="white",
            clip_on=False,
        )
    if prompts.box_rc is not None:
        # The box is given by pixels, the lower right one excluded; pixels end half-way between.
        corners_rc = apply_affine(to_picture, prompts.box_rc.reshape(2, 2) - 0.5)
        (top, left), (bottom, right) = corners_rc.min(axis=0), corners_rc.max(axis=0)
        axes.add_patch(
            Rectangle(
                (left, top),
                right - left,
                bottom - top,
                fill=False,
                edgecolor="orange",
                linewidth=2,
                clip_on=False,
            )
        )
    axes.set_axis_off()


def upright(geometry: Geometry | None) -> np.ndarray:
    """Return, in nibabel's notation (2, 2), what becomes of rows and columns in the picture."""
    if geometry is None:
        return np.array([[0, 1], [1, 1]])
    codes = geometry.orientation
    turns = orientations.ornt_transform(
        orientations.axcodes2ornt(codes),
        orientations.axcodes2ornt(UPRIGHT_CODES[codes[2]] + codes[2]),
    )
    return turns[:2].astype(int)


def pixel_aspect(geometry: Geometry | None) -> float:
    """Return the height of a pixel in the upright picture over its width."""
    if geometry is None:
        return 1
    spacing_mm = np.array(geometry.spacing_mm)[np.argsort(upright(geometry)[:, 0])]
    return spacing_mm[0] / spacing_mm[1]


def _draw_contour(axes: Axes, mask: np.ndarray) -> None:
    rows, columns = mask.shape
    # A frame of background closes the contour of a mask that touches the border.
    axes.contour(
        np.arange(-1, columns + 1),
        np.arange(-1, rows + 1),
        np.pad(mask, 1).astype(float),
        levels=[0.5],
        colors="lime",
        linewidths=1.2,
    )
