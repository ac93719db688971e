"""Checks whether the image and the masks of a case mean what the study takes them for.

Each check returns a `Finding`, or `None`. The thresholds were measured on the real slices and
volumes of the tests, and on phantoms.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam_lungs.data.volume import Volume, planes
from sam_lungs.data.windowing import Window, wrong_window

# Label maps of whole bodies have fewer labels, and images more values.
MOST_LABELS = 255
# Share of labelled pixels without a neighbour of the same label in their slice. Measured: at most
# 2.5 % in label maps (vessels of 64 x 64 pixels), 14 % and more in images.
MOST_ISOLATED = 0.05
# Share of labels most of whose pixels are isolated. Measured: at most 15 % in label maps, 50 % and
# more in smoothed or resized masks, in which the highest label is solid.
MOST_ISOLATED_LABELS = 0.5
# Fewer isolated pixels are no evidence: one pixel is a label, too.
FEWEST_ISOLATED = 20
# An image has more values.
FEWEST_VALUES = 12
SAMPLED_SLICES = 8


@dataclass(frozen=True)
class Finding:
    """Something about the files of a case that a user must know.

    name: what `--allow` takes. message: one line that begins with the path of a file. is_fault: the
    case cannot be processed. is_allowed: a fault that `--allow` names; `is_fault` is False then.
    """

    name: str
    message: str
    is_fault: bool = False
    is_allowed: bool = False


def check_window(
    image: Volume, window: Window | None, under_masks: np.ndarray | None
) -> Finding | None:
    """Return a fault when the window saturates or squeezes what is under the masks.

    under_masks: values under the masks, (voxels,), where masks are known. A picture without a
        window is not checked.
    """
    if window is None and image.is_picture:
        return None
    reason = wrong_window(window, image.array, under_masks)
    if reason is None:
        return None
    return Finding("saturated", f"{image.path}: {reason}, or --allow saturated", is_fault=True)


def same_file(masks_path: Path, image_path: Path) -> Finding:
    """Return the fault that an image is given as masks, too."""
    message = f"{masks_path}: is the same file as the image {image_path}; give the masks with -m"
    return Finding("not_masks", message, is_fault=True)


def check_masks(path: Path, labels: np.ndarray) -> Finding | None:
    """Return a fault when masks look like an image, probabilities, or smoothed masks.

    labels: (rows, columns, slices) as in the file, any real dtype. Fractions are looked for in the
        whole array, the rest in a sample of the slices.
    """
    if labels.dtype.kind == "f" and any(
        np.abs(p - np.rint(p)).max() > 1e-3 for p in planes(labels)
    ):
        if labels.min() >= 0 and labels.max() <= 1:
            message = "holds fractions of 1, like probabilities; write masks of those above 0.5"
        else:
            message = "masks must hold integral labels; is this an image? are -i and -m swapped?"
        return Finding("fractions", f"{path}: {message}", is_fault=True)
    sample = np.rint(labels[:, :, sampled_slices(labels)]).astype(np.int64)
    values = np.unique(sample)
    looks_like = _look_of_masks(sample, values)
    if looks_like is None:
        return None
    number = np.count_nonzero(values)
    message = f"{path}: holds {number} labels or more; it looks like {looks_like}"
    return Finding("not_masks", message, is_fault=True)


def _look_of_masks(sample: np.ndarray, values: np.ndarray) -> str | None:
    """Return what masks with these values look like, or `None` for masks."""
    number, image = np.count_nonzero(values), "an image; are -i and -m swapped?"
    if number > MOST_LABELS:
        return image
    indices = np.searchsorted(values, sample)
    pixels = np.bincount(indices.ravel(), minlength=len(values))[values != 0]
    isolated = np.bincount(indices[_is_isolated(indices)], minlength=len(values))[values != 0]
    if isolated.sum() < FEWEST_ISOLATED:
        return None
    is_thin = isolated > pixels / 2
    if values[0] == 0 and not is_thin[-1] and np.mean(is_thin) >= MOST_ISOLATED_LABELS:
        return f"smoothed or resized masks; write masks of values above {values[-1] // 2}"
    # Noise in masks of few labels is noise of a segmentation.
    return image if number > 3 and isolated.sum() > MOST_ISOLATED * pixels.sum() else None


def check_image(path: Path, values: np.ndarray) -> Finding | None:
    """Return a fault when an image is constant, or looks like masks: few integers from 0."""
    low, high = values.min(), values.max()
    if low == high:
        message = f"{path}: every voxel is {low:g}, so there is nothing to see; make it again"
        return Finding("not_image", message, is_fault=True)
    if low != 0:
        return None
    found = np.zeros(1)
    for plane in planes(values):
        found = np.union1d(found, plane[:: max(1, len(plane) // 64)])
        if len(found) >= FEWEST_VALUES:
            return None
    if len(found) == 1 or check_masks(path, values):
        return None
    message = f"holds only the values {', '.join(f'{value:g}' for value in found)}"
    message = f"{path}: {message}; it looks like masks; give the image with -i"
    return Finding("not_image", message, is_fault=True)


def check_orientation(image: Volume) -> Finding | None:
    """Return a fault or a warning about the axis along which the slices of an image lie."""
    rows, columns, slices = image.array.shape
    geometry = image.geometry
    if geometry is not None and geometry.is_oriented:
        axis = int(np.abs(geometry.array_affine[:3, 2]).argmax())
        if np.array_equal(geometry.affine, np.eye(4)) and rows == slices != columns > 1:
            # In the file, the first two axes are swapped.
            message = (
                f"{image.path}: has an identity affine, and shape {geometry.file_shape}; if these"
                " are (slices, rows, columns), convert the original volume again"
            )
            return Finding("slices_first", message)
        if axis == 2 or slices == 1:
            return None
        message = (
            f"{image.path}: its slices are {('sagittal', 'coronal')[axis]}, not axial; convert the"
            " original image and masks with nifti_to_numpy.py --orientation radiological, or give"
            " --allow orientation"
        )
        return Finding("orientation", message, is_fault=True)
    if rows != columns == slices > 1:
        message = (
            f"{image.path}: has shape {image.array.shape}; if these are (slices, rows, columns),"
            " move the first axis to the end"
        )
        return Finding("slices_first", message)
    if geometry is not None and geometry.header is not None:
        message = f"{image.path}: its header has no orientation, so orientation is not checked"
        return Finding("orientation_unknown", message)
    return None


def sampled_slices(labels: np.ndarray) -> np.ndarray:
    """Return the indices of at most SAMPLED_SLICES slices that are not all background."""
    labelled = np.flatnonzero(labels.any(axis=(0, 1)))
    return labelled[:: -(-len(labelled) // SAMPLED_SLICES) or 1]


def check_names(image_path: Path, masks_paths: Sequence[Path]) -> Finding | None:
    """Return a warning when the numbers in the names of image and masks disagree.

    Either name may have more numbers. Of several masks files only the numbers count that all have:
    `lobe_1` and `lobe_2` may be parts of a case. Where no name has numbers, the folders below the
    common one count: `s0001/ct.nii.gz`, `s0002/lungs.nii.gz`. The names of DICOM files say nothing.
    """
    paths = [image_path, *masks_paths]
    if image_path.is_dir() or any(path.suffix.lower() == ".dcm" for path in paths):
        return None
    names = [path.name for path in paths]
    if not any(map(_numbers, names)):
        absolute = [os.path.abspath(path) for path in paths]
        names = [os.path.relpath(path, os.path.commonpath(absolute)) for path in absolute]
    of_image, *of_masks = map(_numbers, names)
    common = set.intersection(*of_masks)
    if not of_image or not common or of_image <= common or common <= of_image:
        return None
    message = f"{masks_paths[0]}: by its name it belongs to another image than {image_path}"
    return Finding("names", f"{message}; check the order of the files")


def _numbers(name: str) -> set[int]:
    return {int(number) for number in re.findall(r"\d+", name)}


def _is_isolated(labels: np.ndarray) -> np.ndarray:
    """Return where no neighbour in the same row or column of the slice has the same label."""
    is_isolated = np.ones(labels.shape, bool)
    for first, second in ((np.s_[:-1], np.s_[1:]), (np.s_[:, :-1], np.s_[:, 1:])):
        differs = labels[first] != labels[second]
        is_isolated[first] &= differs
        is_isolated[second] &= differs
    return is_isolated
