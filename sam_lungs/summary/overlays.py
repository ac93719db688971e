"""Pictures of a processed volume, drawn from its input and result files, without a model."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from nibabel import orientations
from PIL import Image

from sam_lungs.data.case import Case, read_case
from sam_lungs.data.case_files import CaseFiles, Reading
from sam_lungs.data.nifti import read_nifti
from sam_lungs.data.windowing import Window, slice_to_rgb
from sam_lungs.prompts.protocols import PromptProtocol
from sam_lungs.prompts.volume import VolumePrompts
from sam_lungs.study.layout import MASKS_NAME, RAW_DATA_NAME, RUN_NAME
from sam_lungs.study.pictures import PREDICTED_RGBA, draw_prediction, pixel_aspect, upright
from sam_lungs.study.results import read_raw_data
from sam_lungs.study.run_record import RunRecord
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import atomic_write

GIF_WIDTH = 320
GIF_FRAMES = 60
GIF_FRAME_MS = 100
CONTOUR_RGB = (0, 255, 0)


class ProcessedVolume(NamedTuple):
    """The input of a volume's run, and the masks that were predicted.

    protocol: None with the prompts of a file, which are not drawn. objects: one of
    `options.OBJECTS`. predicted: (rows, columns, slices) bool. table: see
    `results.read_raw_data`.
    """

    case: Case
    protocol: PromptProtocol | None
    objects: str
    predicted: np.ndarray
    table: pd.DataFrame


def read_processed(results_folder: Path) -> ProcessedVolume | None:
    """Read a volume's results, and the image and masks that they were made from.

    Returns `None` for a run without `--save_masks`, for masks that were scored without their image,
    and for a folder without `run.json`, such as the authors' published ones.

    Raises `InputError` when a file is missing or cannot be read, or was changed.
    """
    record = RunRecord.read(results_folder)
    if record is None or MASKS_NAME not in (record.files or {}):
        return None
    if record.predictions and not record.image:
        return None
    if changed := record.changed_file(results_folder):
        raise InputError(
            f"{changed}: missing, or changed since its run; process its image again, with"
            " --overwrite"
        )
    path = results_folder / RUN_NAME
    try:
        case = read_case(_files(record))
        # Prompts of a file, and of masks that were made elsewhere, are not known here.
        is_known = record.protocol and "prompts_file" not in record.protocol
        protocol = PromptProtocol(**record.protocol) if is_known else None
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: not a run record; process its image again") from error
    # Before the faults, because a changed file may have some.
    for identity in [*([case.image.identity] if case.image else []), *case.masks_identities]:
        if identity not in (record.image, *record.masks):
            raise InputError(
                f"{identity['file']}: changed since {path}; process its image again, with"
                " --overwrite"
            )
    if case.faults:
        raise InputError(case.faults[0])
    if record.options.get("preprocessing", "common") != "common":
        low, high = record.window_hu
        case = replace(case, window=Window((low + high) / 2, high - low))
    # Back to the axes of the file, of which `read_nifti` swaps two, and from there to the image's.
    on_file_grid = read_nifti(results_folder / MASKS_NAME).array.swapaxes(0, 1)
    predicted = orientations.apply_orientation(on_file_grid, case.image.geometry.file_to_array)
    objects = record.options.get("objects", "together")
    table = read_raw_data(results_folder / RAW_DATA_NAME)
    return ProcessedVolume(case, protocol, objects, predicted != 0, table)


def _files(record: RunRecord) -> CaseFiles:
    """Return the files of a run, read as they were then; faults that were allowed still are."""
    reading = dict(record.reading)
    if reading.get("objects"):
        reading["objects"] = {name: tuple(each) for name, each in reading["objects"].items()}
    if reading.get("spacing_mm"):
        reading["spacing_mm"] = tuple(reading["spacing_mm"])
    reading["allow"] = tuple(found["name"] for found in record.findings if found["is_allowed"])
    masks_paths = tuple(Path(identity["file"]) for identity in record.masks)
    return CaseFiles(Path(record.image["file"]), masks_paths, Reading(**reading))


def draw_extremes(volume: ProcessedVolume) -> Figure:
    """Draw the slices with the worst, the median and the best Dice, see `pictures.draw_prediction`.

    For an even number of slices the median is the lower of the two middle ones.
    """
    ranked = volume.table.dropna(subset=["dice"]).sort_values("dice", kind="stable")
    chosen = {"worst": 0, "median": (len(ranked) - 1) // 2, "best": len(ranked) - 1}
    image, masks = volume.case.image, volume.case.masks
    prompts = None
    if volume.protocol:
        slices_of_labels = volume.case.slices_of_labels
        prompts = VolumePrompts(masks.array, slices_of_labels, volume.protocol, volume.objects)
    figure = Figure(layout="constrained")
    panels = figure.subplots(1, len(chosen))
    for axes, (name, rank) in zip(panels, chosen.items(), strict=True):
        row = ranked.iloc[rank]
        index = int(row["slice"])
        image_rgb = slice_to_rgb(image.array[:, :, index], volume.case.window)
        labels, predicted = masks.array[:, :, index], volume.predicted[:, :, index]
        united = prompts.at(index).united if prompts else []
        draw_prediction(axes, image_rgb, labels, united, predicted, image.geometry, marker_size=9)
        axes.set_title(f"{name}: slice {index}, Dice {row['dice']:.3f}", fontsize=9)
    left, right, bottom, top = axes.images[0].get_extent()
    height = (bottom - top) / (right - left) * pixel_aspect(image.geometry)
    figure.set_size_inches(7, 7 / len(chosen) * height + 0.6)
    legend = "blue: predicted mask; green: reference contours"
    if any(axes.lines for axes in panels):
        legend += "; stars: positive (green) and negative (red) points"
    if any(axes.patches for axes in panels):
        legend += "; orange: box"
    figure.supxlabel(legend, fontsize=8)
    return figure


def save_animation(volume: ProcessedVolume, path: Path) -> None:
    """Write an animated GIF of a volume's slices, at most GIF_FRAMES of them, evenly spaced.

    The predicted mask is translucent blue, the reference contours are green.

    Raises `InputError` when the GIF cannot be written.
    """
    slices = volume.predicted.shape[2]
    chosen = np.linspace(0, slices - 1, min(slices, GIF_FRAMES)).round().astype(int)
    first, *others = (_frame(volume, index) for index in chosen)
    with atomic_write(path) as temporary:
        first.save(temporary, save_all=True, append_images=others, duration=GIF_FRAME_MS, loop=0)


def _frame(volume: ProcessedVolume, index: int) -> Image.Image:
    """Draw one slice, upright, at most GIF_WIDTH wide."""
    case, geometry = volume.case, volume.case.image.geometry
    image_rgb, labels, predicted = (
        orientations.apply_orientation(array, upright(geometry))
        for array in (
            slice_to_rgb(case.image.array[:, :, index], case.window),
            case.masks.array[:, :, index],
            volume.predicted[:, :, index],
        )
    )
    height, width = labels.shape[0] * pixel_aspect(geometry), labels.shape[1]
    scale = min(1, GIF_WIDTH / width)
    size_xy = round(width * scale), max(1, round(height * scale))

    def resize_mask(mask: np.ndarray) -> np.ndarray:
        return cv2.resize(mask.astype(np.uint8), size_xy, interpolation=cv2.INTER_NEAREST)

    # Greys in steps of 4, because with the mask's blues a GIF must not have more than 256 colours.
    frame = cv2.resize(image_rgb, size_xy, interpolation=cv2.INTER_AREA) // 4 * 4
    *blue, opacity = PREDICTED_RGBA
    blended = (1 - opacity) * frame + opacity * 255 * np.array(blue)
    frame = np.where(resize_mask(predicted)[..., None], blended.astype(np.uint8), frame)
    for label in np.unique(labels[labels != 0]):
        mask = resize_mask(labels == label)
        contours, _ = cv2.findContours(mask, cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(frame, contours, -1, CONTOUR_RGB)
    for color, thickness in (((0, 0, 0), 3), ((252, 252, 252), 1)):
        cv2.putText(frame, str(index), (4, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.4, color, thickness)
    return Image.fromarray(frame)
