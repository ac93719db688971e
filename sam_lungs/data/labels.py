"""Label masks: read a label volume, merge files of one object each, and choose objects."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from sam_lungs.data.guard import reading
from sam_lungs.data.plausibility import Finding
from sam_lungs.data.volume import Volume, planes, smallest_dtype
from sam_lungs.utils.errors import InputError

# The two lungs. Each label gets a point of its own.
USUAL_LABELS = 2
IGNORE_LABEL = 255
# Fewer pixels of a label in a slice are a speck. Lungs end in specks: at most 2 % of their slices
# in the real volumes.
SPECK_PIXELS = 5
MOST_SPECK_SLICES = 0.2
# A second part with this share of the first one's pixels in most slices is a second object.
# Measured: in none of the slices of single lungs and lobes.
LARGE_PART = 0.25
_SAMPLED_SLICES = 16

Objects = Mapping[str, Sequence[int]]


def to_labels(volume: Volume) -> Volume:
    """Return a volume of integral values as labels: uint8, int16 or int32.

    Raises `InputError` for labels of more than 32 bits.
    """
    with reading(volume.path):
        labels = volume.array
        if labels.dtype.kind == "f":
            labels = np.rint(labels)
        dtype = smallest_dtype(planes(labels))
        if dtype == np.float32:
            raise InputError(f"{volume.path}: labels must fit into 32 bits; is this an image?")
        return replace(volume, array=labels.astype(dtype, copy=False))


def merge_files(volumes: Sequence[Volume]) -> tuple[Volume, list[Finding]]:
    """Return one label volume of several on one grid: volume i, from 1, becomes label i.

    Returns the labels, and a fault `overlap` for each volume that has voxels in common with an
    earlier one. The earlier one keeps them.
    """
    merged = np.zeros(volumes[0].array.shape, np.min_scalar_type(len(volumes)), order="F")
    findings = []
    for label, volume in enumerate(volumes, start=1):
        is_object = volume.array != 0
        common = np.count_nonzero(merged[is_object])
        if common:
            message = (
                f"{volume.path}: {common} of its voxels are in an earlier masks file, too; give"
                " files of separate objects, or --allow overlap to count these for the first file"
            )
            findings.append(Finding("overlap", message, is_fault=True))
        merged[is_object & (merged == 0)] = label
    return replace(volumes[0], array=merged), findings


def check_one_object(volume: Volume) -> Finding | None:
    """Return a fault when a file that should hold one object has several values but 0."""
    values = volume.array[volume.array != 0]
    if not len(values) or (values == values[0]).all():
        return None
    message = "holds several labels, but of several masks files each must hold one object"
    return Finding("several_labels", f"{volume.path}: {message}", is_fault=True)


def select_objects(
    labels: np.ndarray, objects: Objects | None, values: Mapping[str, int] | None = None
) -> np.ndarray:
    """Return the labels of the chosen objects; all other voxels become background.

    objects: name of an object -> its labels. `None`: all labels. values: name of an object -> its
        new label, by default as `object_values` returns them.
    """
    if objects is None:
        return labels
    values = values or object_values(objects)
    dtype = np.result_type(np.uint8, np.min_scalar_type(max(values.values())))
    selected = np.zeros_like(labels, dtype=dtype)
    for target, plane in zip(planes(selected), planes(labels), strict=True):
        for name, own in objects.items():
            for label in own if plane.any() else ():
                target[plane == label] = values[name]
    return selected


def object_values(objects: Objects) -> dict[str, int]:
    """Return the label of each object in a volume of the chosen objects.

    If every object is named after its only label, the voxels keep their labels. Otherwise the
    objects become 1, 2, ... in order.
    """
    if all([name] == [str(label) for label in own] for name, own in objects.items()):
        return {name: own[0] for name, own in objects.items()}
    return {name: number for number, name in enumerate(objects, start=1)}


def values_under(labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the values of an image where a label is not 0, (voxels,)."""
    pairs = zip(planes(labels), planes(values), strict=True)
    return np.concatenate([image[plane != 0] for plane, image in pairs])


def count_labels(labels: np.ndarray) -> dict[int, np.ndarray]:
    """Return {label: its pixels in each slice, (slices,)} for every label but 0, in order."""
    counts: dict[int, np.ndarray] = {}
    for index, plane in enumerate(planes(labels)):
        if not plane.any():
            continue
        # NumPy sorts 32-bit integers much faster than smaller ones.
        for label, pixels in zip(
            *np.unique(plane.astype(np.int32), return_counts=True), strict=True
        ):
            if label:
                of_label = counts.setdefault(int(label), np.zeros(labels.shape[2], np.int64))
                of_label[index] = pixels
    return dict(sorted(counts.items()))


def check_labels(path: Path, present: Sequence[int], objects: Objects | None) -> list[Finding]:
    """Return faults of the labels that a file holds, and a warning if they are unusually many.

    present: the labels but 0 in ascending order. objects: see `select_objects`.
    """
    shown = _listed(present)
    if objects is not None:
        missing = [label for own in objects.values() for label in own if label not in present]
        if not missing:
            return []
        message = f"{path}: has no label {_listed(missing)}; its labels are {shown}"
        return [Finding("missing_label", f"{message}; give --labels of these", is_fault=True)]
    positive = [label for label in present if label > 0]
    if positive != present:
        remedy = f"choose labels with --labels {_option(positive)}"
        if not positive:
            remedy = "write masks with labels of at least 1"
        message = f"{path}: has negative labels ({shown}); {remedy}"
        return [Finding("negative_labels", message, is_fault=True)]
    if IGNORE_LABEL in present and len(present) > 1:
        others = [label for label in present if label != IGNORE_LABEL]
        message = (
            f"{path}: has label 255 beside {_listed(others)}; 255 often means to ignore a voxel:"
            f" give --labels {_option(others)}, or --allow ignore_label to count it as an object"
        )
        return [Finding("ignore_label", message, is_fault=True)]
    if len(present) > USUAL_LABELS:
        message = (
            f"{path}: holds {len(present)} labels ({shown}), and each gets a point of its own;"
            " choose with --labels LABEL,LABEL or merge with --labels left=... right=..."
        )
        return [Finding("many_labels", message)]
    return []


def check_parts(path: Path, labels: np.ndarray, counts: Mapping[int, np.ndarray]) -> list[Finding]:
    """Return a warning about labels that are specks, and one about labels of two large parts.

    labels: of the objects, (rows, columns, slices). counts: see `count_labels`.
    """
    specks, pairs = [], []
    for label, pixels in counts.items():
        slices = np.flatnonzero(pixels)
        if np.mean(pixels[slices] < SPECK_PIXELS) > MOST_SPECK_SLICES:
            specks.append(label)
            continue
        sample = slices[:: -(-len(slices) // _SAMPLED_SLICES)]
        if np.mean([_has_two_parts(labels[:, :, index] == label) for index in sample]) > 0.5:
            pairs.append(label)
    findings = []
    if specks:
        slices = sum(np.count_nonzero((counts[x] > 0) & (counts[x] < SPECK_PIXELS)) for x in specks)
        message = (
            f"{path}: label {_listed(specks)} has fewer than {SPECK_PIXELS} pixels in {slices}"
            " slices, and gets a point in each; leave it out with --labels"
        )
        findings.append(Finding("specks", message))
    if pairs:
        message = (
            f"{path}: label {_listed(pairs)} has two large parts in most slices, and only one of"
            " them gets a point; give --points contours for a point in each part"
        )
        findings.append(Finding("one_label", message))
    return findings


def _has_two_parts(mask: np.ndarray) -> bool:
    statistics = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)[2]
    areas = np.sort(statistics[1:, cv2.CC_STAT_AREA])
    return len(areas) > 1 and areas[-2] >= LARGE_PART * areas[-1]


def _option(labels: Sequence[int]) -> str:
    """Return labels as `--labels` takes them."""
    return ",".join(map(str, labels))


def _listed(labels: Sequence[int]) -> str:
    """Return labels for a message, at most ten."""
    text = _option(labels[:10])
    return text if len(labels) <= 10 else f"{text},..."
