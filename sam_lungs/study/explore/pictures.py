"""Pictures of maps: Dice by the position of a click, over the slice."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke
from nibabel import orientations
from nibabel.affines import apply_affine

from sam_lungs.data.volume import Geometry
from sam_lungs.study.explore.results import ClickMap
from sam_lungs.study.pictures import draw_prediction, pixel_aspect, upright
from sam_lungs.utils.files import atomic_write

COLOURS = "cividis"  # the same order of brightness for all readers, and in black and white
OUTLINED = {"path_effects": [withStroke(linewidth=2.5, foreground="black")]}


def save_maps(
    path: Path,
    image_rgb: np.ndarray,
    references: dict[str, np.ndarray],
    maps: dict[str, ClickMap],
    step: int,
    geometry: Geometry | None,
) -> None:
    """Draw the maps of one slice as PNG, a panel for each object.

    A position has the colour of its block. The contour of the reference mask is white. The scale
    bar is in mm, or in pixels where their size is not known.

    image_rgb: (rows, columns, 3) uint8. references: (rows, columns) bool, by object, as `maps`.
    step: side of a block. geometry: see `pictures.save_prediction`.

    Raises `InputError` when it cannot be written.
    """
    rows, columns = image_rgb.shape[:2]
    if upright(geometry)[0, 0] == 1:
        rows, columns = columns, rows
    height = 4 * rows / columns * pixel_aspect(geometry)
    figure = Figure(figsize=(4 * len(maps) + 0.8, height + 0.5), dpi=150, layout="constrained")
    panels = figure.subplots(1, len(maps), squeeze=False)[0]
    for axes, (name, click_map) in zip(panels, maps.items(), strict=True):
        nothing = np.zeros_like(references[name])
        draw_prediction(
            axes, image_rgb, references[name].astype(np.uint8), [], nothing, geometry, ["contours"]
        )
        for contour in axes.collections:
            contour.set(facecolor="none", edgecolor="white", linewidth=1, **OUTLINED)
        mesh = _draw_map(axes, click_map, step, image_rgb.shape[:2], geometry)
        _draw_scale_bar(axes, geometry)
        axes.set_title("all objects" if name == "all" else f"object {name}")
    figure.colorbar(mesh, ax=list(panels), label="Dice score with a click here")
    with atomic_write(path) as temporary:
        figure.savefig(temporary)


def _draw_map(
    axes: Axes, click_map: ClickMap, step: int, size_rc: tuple[int, int], geometry: Geometry | None
) -> object:
    """Draw a map under the contours, and return it for the colour bar."""
    # Pixels end at half indices. The last block may be cut off by the border of the slice.
    edges = [
        np.append(at // step * step, min(at[-1] // step * step + step, size)) - 0.5
        for at, size in zip((click_map.rows, click_map.columns), size_rc, strict=True)
    ]
    corners_rc = np.stack(np.meshgrid(*edges, indexing="ij"), axis=-1)
    to_picture = np.linalg.inv(orientations.inv_ornt_aff(upright(geometry), size_rc))
    rows, columns = np.moveaxis(apply_affine(to_picture, corners_rc), -1, 0)
    limits = axes.axis()
    mesh = axes.pcolormesh(
        columns, rows, click_map.dice, vmin=0, vmax=1, cmap=COLOURS, zorder=0.5, rasterized=True
    )
    axes.axis(limits)
    return mesh


def _draw_scale_bar(axes: Axes, geometry: Geometry | None) -> None:
    """Draw a bar of at most a quarter of the picture's width at its lower left."""
    left, right, bottom, top = axes.axis()
    pixel, unit = 1.0, "pixels"
    if geometry is not None:
        across = np.argsort(upright(geometry)[:, 0])[1]
        pixel, unit = geometry.spacing_mm[across], "mm"
    quarter = (right - left) * pixel / 4
    length = max(
        each
        for power in range(-3, 5)
        for each in np.array([1, 2, 5]) * 10.0**power
        if each <= quarter
    )
    start, row = left + 0.05 * (right - left), bottom + 0.05 * (top - bottom)
    axes.plot([start, start + length / pixel], [row, row], color="white", linewidth=2, **OUTLINED)
    axes.annotate(
        f"{length:g} {unit}",
        (start, row),
        (0, 4),
        textcoords="offset points",
        color="white",
        **OUTLINED,
    )
