"""Pictures of a processed volume, made from the files it was read from and written to; no model."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from nibabel import orientations
from PIL import Image

from sam_lungs.data.volumes import Volume, read_nifti, read_pair
from sam_lungs.data.windowing import Window, slice_to_rgb
from sam_lungs.prompts.rules import PromptProtocol, make_prompts
from sam_lungs.study.pictures import PREDICTED_RGBA, draw_prediction, pixel_aspect, upright
from sam_lungs.study.results import MASKS_NAME, RAW_DATA_NAME, RUN_NAME, read_raw_data, read_run
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import replacing

FIGURE_WIDTH_INCHES = 7

GIF_WIDTH = 320
GIF_FRAMES = 60
GIF_FRAME_MS = 100
# The palette of the animation: greys, the same greys under the predicted mask, and the contour.
GREYS = 64
CONTOUR = 2 * GREYS
CONTOUR_RGB = (0, 255, 0)


@dataclass(frozen=True, eq=False)
class ProcessedVolume:
    """What a volume's results were made from, and what SAM predicted.

    predicted: (rows, columns, slices) bool. table: as `results.read_raw_data` returns it.
    """

    image: Volume
    masks: Volume
    predicted: np.ndarray
    window: Window | None
    protocol: PromptProtocol
    table: pd.DataFrame


def read_processed(results_folder: Path) -> ProcessedVolume | None:
    """Read a volume's results, and the image and masks that they were made from.

    results_folder: holds `run.json`, `raw_data.csv` and `predicted_masks.nii.gz`. `None` without
        `run.json`, as the authors' published folders, and of a run without `--save_masks`.

    Raises `InputError` when a file is missing, broken, or not the one that the results are of.
    """
    run_path = results_folder / RUN_NAME
    run = read_run(results_folder)
    if run is None:
        return None
    try:
        if not run["options"]["save_masks"]:
            return None
        paths = [Path(run[role]["file"]) for role in ("image", "masks")]
        hashes = [run[role]["sha256"] for role in ("image", "masks")]
        protocol = PromptProtocol(**run["protocol"])
        window = None
        if run["window_hu"] is not None:
            low_hu, high_hu = run["window_hu"]
            window = Window((low_hu + high_hu) / 2, high_hu - low_hu)
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{run_path}: not the record of a run; process its image again") from error
    image, masks, _ = read_pair(*paths)
    for volume, sha256 in zip((image, masks), hashes, strict=True):
        if volume.sha256 != sha256:
            raise InputError(
                f"{volume.path}: has changed since {run_path}; process the image again"
            )
    table = read_raw_data(results_folder / RAW_DATA_NAME)
    predicted = _read_predicted(results_folder / MASKS_NAME, image, table)
    return ProcessedVolume(image, masks, predicted, window, protocol, table)


def draw_extremes(volume: ProcessedVolume) -> Figure:
    """Draw the slices with the worst, the median and the best Dice side by side, as
    `figures.save_prediction` draws them; where two are in the middle, the lower is the median.
    """
    ranked = volume.table.dropna(subset=["dice"]).sort_values("dice", kind="stable")
    chosen = {"worst": 0, "median": (len(ranked) - 1) // 2, "best": len(ranked) - 1}
    height, width = _picture_size(volume)
    panel_width = FIGURE_WIDTH_INCHES / len(chosen)
    figure = Figure(
        figsize=(FIGURE_WIDTH_INCHES, panel_width * height / width + 0.7), layout="constrained"
    )
    panels = figure.subplots(1, len(chosen))
    for axes, (rank, place) in zip(panels, chosen.items(), strict=True):
        row = ranked.iloc[place]
        index = int(row["slice"])
        masks = volume.masks.array[:, :, index]
        draw_prediction(
            axes,
            slice_to_rgb(volume.image.array[:, :, index], volume.window),
            masks,
            make_prompts(masks, volume.protocol),
            volume.predicted[:, :, index],
            volume.image.geometry,
            marker_size=9,
        )
        axes.set_title(f"{rank}: slice {index}, Dice {row['dice']:.3f}", fontsize=9)
    figure.supxlabel(
        "blue: SAM's mask; green: true contours; stars: positive (green) and negative (red) points",
        fontsize=8,
    )
    return figure


def save_animation(volume: ProcessedVolume, path: Path) -> None:
    """Write an animated GIF through a volume's slices, evenly chosen where there are many: SAM's
    mask in translucent blue, the true contours in green.

    Raises `InputError` when the GIF cannot be written.
    """
    slices = volume.image.array.shape[2]
    chosen = np.linspace(0, slices - 1, min(slices, GIF_FRAMES)).round().astype(int)
    first, *others = (_frame(volume, index) for index in chosen)
    with replacing(path) as temporary:
        first.save(
            temporary,
            format="GIF",
            save_all=True,
            append_images=others,
            duration=GIF_FRAME_MS,
            loop=0,
        )


def _read_predicted(path: Path, image: Volume, table: pd.DataFrame) -> np.ndarray:
    """Read the predicted masks onto the image's array, which need not lie as in the paper."""
    if not path.exists():
        raise InputError(f"{path}: no such file; process the image again with --save_masks")
    stale = InputError(f"{path}: not of the run beside it, or its image; process the image again")
    # Back to the file's own axes, the first two swapped, and from there to the image's.
    on_file_grid = read_nifti(path).array.swapaxes(0, 1)
    if image.geometry is None or on_file_grid.shape != image.geometry.file_shape:
        raise stale
    predicted = orientations.apply_orientation(on_file_grid, image.geometry.file_to_array) != 0
    of_lung = table.dropna(subset=["dice"])
    if len(table) != predicted.shape[2] or not np.array_equal(
        np.count_nonzero(predicted, axis=(0, 1))[of_lung["slice"]], of_lung["predicted_pixels"]
    ):
        raise stale
    return predicted


def _picture_size(volume: ProcessedVolume) -> tuple[float, float]:
    """Height and width of an upright slice, in units of a pixel's width."""
    axes_map = upright(volume.image.geometry)
    rows, columns = np.array(volume.image.array.shape)[np.argsort(axes_map[:, 0])]
    return rows * pixel_aspect(volume.image.geometry), columns


def _frame(volume: ProcessedVolume, index: int) -> Image.Image:
    """One slice, upright, at most GIF_WIDTH wide, with the animation's palette."""
    height, width = _picture_size(volume)
    scale = min(1, GIF_WIDTH / width)
    size_xy = round(width * scale), max(1, round(height * scale))
    axes_map = upright(volume.image.geometry)
    grey, masks, predicted = (
        orientations.apply_orientation(array, axes_map)
        for array in (
            slice_to_rgb(volume.image.array[:, :, index], volume.window)[:, :, 0],
            volume.masks.array[:, :, index],
            volume.predicted[:, :, index].astype(np.uint8),
        )
    )
    colors = cv2.resize(grey, size_xy, interpolation=cv2.INTER_AREA) // (256 // GREYS)
    colors += GREYS * cv2.resize(predicted, size_xy, interpolation=cv2.INTER_NEAREST)
    for label in np.unique(masks[masks != 0]):
        of_label = (masks == label).astype(np.uint8)
        of_label = cv2.resize(of_label, size_xy, interpolation=cv2.INTER_NEAREST)
        contours, _ = cv2.findContours(of_label, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(colors, contours, -1, CONTOUR)
    for grey, thickness in ((0, 3), (GREYS - 1, 1)):
        cv2.putText(colors, str(index), (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, grey, thickness)
    frame = Image.fromarray(colors)
    frame.putpalette(_palette())
    return frame


def _palette() -> bytes:
    greys = np.linspace(0, 255, GREYS)[:, None].repeat(3, axis=1)
    *blue, opacity = PREDICTED_RGBA
    under_mask = (1 - opacity) * greys + opacity * 255 * np.array(blue)
    return np.vstack([greys, under_mask, CONTOUR_RGB]).round().astype(np.uint8).tobytes()
