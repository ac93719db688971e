"""Bring masks onto the grid of their image, by their affines or voxel by voxel."""

from dataclasses import dataclass, replace

import nibabel as nib
import numpy as np
from nibabel import orientations

from sam_lungs.data.plausibility import Finding
from sam_lungs.data.volume import Volume
from sam_lungs.data.zenodo import PAPER_VOLUMES
from sam_lungs.utils.errors import InputError

# Largest distance, at a corner of the masks, from a voxel of the image, in voxels.
TOLERANCE_VOXELS = 0.1
_PATIENT_AXES = ("left-right", "front-back", "head-feet")


@dataclass(frozen=True, eq=False)
class _Relation:
    """How the grid of masks lies in the grid of an image, both arrays (rows, columns, slices).

    order: (3, 2) int, the orientation of the masks' axes along those of the image, as in
        `nibabel.orientations`. shift: (3,) int, voxels of the image from its first voxel to the
        first of the masks after this reorientation. error_voxels: largest distance of a corner from
        the place that `order` and `shift` give it. offset_voxels, offset_mm: largest distance of a
        corner from the voxel of the image with the same index.
    """

    order: np.ndarray
    shift: np.ndarray
    error_voxels: float
    offset_voxels: float
    offset_mm: float

    @property
    def is_exact(self) -> bool:
        return self.error_voxels <= TOLERANCE_VOXELS

    @property
    def is_overlay(self) -> bool:
        """Whether voxels with the same index are less than a voxel apart, along the same axes."""
        keeps_axes = np.array_equal(self.order, [[0, 1], [1, 1], [2, 1]])
        return self.offset_voxels <= TOLERANCE_VOXELS or (keeps_axes and self.offset_voxels < 1)


def align_masks(image: Volume, masks: Volume, align: str = "auto") -> tuple[Volume, list[Finding]]:
    """Return masks on the grid of their image, and a warning where the affines disagree.

    align: `affine` turns and moves the masks by their affine, without interpolation; what they do
        not cover is background. `voxels` compares voxels with the same index, as in the paper.
        `auto` is `voxels` if the affines agree within a voxel and their axes have the same
        directions, if an affine is not known, and for the paper's own volumes; it is `affine` for
        masks that only their affine places (DICOM segmentations).

    Raises `InputError` when `affine` would need interpolation or would lose labels, when `voxels`
    finds other shapes, and when `auto` is neither.
    """
    uses_affine = align == "affine" or (align == "auto" and masks.is_placed)
    if not (_is_known(image) and _is_known(masks)):
        if uses_affine:
            unknown = masks if _is_known(image) else image
            raise InputError(
                f"{unknown.path}: its affine is not known, so masks cannot be placed by it; give"
                " --align voxels to compare voxels with the same index"
            )
        return _overlay(image, masks), []
    relation = _relate(image, masks)
    if uses_affine:
        return _place(image, masks, relation), []
    if align == "voxels" or _are_of_the_paper(image, masks):
        aligned = _overlay(image, masks)
        end = "; voxels with the same index are compared anyway, as in the paper"
    elif relation.is_overlay and masks.array.shape == image.array.shape:
        aligned, end = _overlay(image, masks), ""
    else:
        raise InputError(
            f"{masks.path}: {_disagreement(image, masks, relation)}; give"
            f" {_remedies(image, masks, relation)}"
        )
    if relation.offset_voxels <= TOLERANCE_VOXELS:
        return aligned, []
    message = f"{masks.path}: {_disagreement(image, masks, relation)}{end}"
    return aligned, [Finding("offset", message)]


def _is_known(volume: Volume) -> bool:
    return volume.geometry is not None and volume.geometry.is_oriented


def _are_of_the_paper(image: Volume, masks: Volume) -> bool:
    names = [(volume.source_name or "").removesuffix(".gz") for volume in (image, masks)]
    return all(name.removesuffix(".nii") in PAPER_VOLUMES for name in names)


def _relate(image: Volume, masks: Volume) -> _Relation:
    to_image = np.linalg.inv(image.geometry.array_affine) @ masks.geometry.array_affine
    order = orientations.io_orientation(to_image).astype(int)
    last = np.array(masks.array.shape) - 1
    corners = np.array(list(np.ndindex(2, 2, 2))) * last
    in_image = nib.affines.apply_affine(to_image, corners)
    # The nearest transform of flips, swaps and whole voxels.
    turned = np.zeros((len(corners), 3))
    for axis, (image_axis, direction) in enumerate(order):
        index = corners[:, axis]
        turned[:, image_axis] = index if direction == 1 else last[axis] - index
    shift = np.rint((in_image - turned).mean(axis=0))
    offset_mm = nib.affines.apply_affine(
        masks.geometry.array_affine, corners
    ) - nib.affines.apply_affine(image.geometry.array_affine, corners)
    return _Relation(
        order,
        shift.astype(int),
        float(np.abs(in_image - turned - shift).max()),
        float(np.abs(in_image - corners).max()),
        float(np.linalg.norm(offset_mm, axis=1).max()),
    )


def _overlay(image: Volume, masks: Volume) -> Volume:
    if masks.array.shape != image.array.shape:
        raise InputError(
            f"{masks.path}: masks have shape {masks.array.shape}, but {image.path} has"
            f" {image.array.shape}; give masks of the same volume, converted in the same way"
        )
    return replace(masks, geometry=image.geometry)


def _place(image: Volume, masks: Volume, relation: _Relation) -> Volume:
    resample = "resample the masks onto the image's grid with nearest neighbours"
    if not relation.is_exact:
        raise InputError(
            f"{masks.path}: {_disagreement(image, masks, relation)}, and --align affine does not"
            f" interpolate; {resample}"
        )
    turned = orientations.apply_orientation(masks.array, relation.order)
    start, end = relation.shift, relation.shift + turned.shape
    low, high = np.clip(start, 0, image.array.shape), np.clip(end, 0, image.array.shape)
    inside = turned[tuple(map(slice, low - start, high - start))]
    outside = np.count_nonzero(turned) - np.count_nonzero(inside)
    if outside:
        raise InputError(
            f"{masks.path}: {outside} labelled voxels lie outside {image.path}; give masks of the"
            f" same volume, or {resample}"
        )
    if inside.shape != image.array.shape:
        placed = np.zeros(image.array.shape, turned.dtype, order="F")
        placed[tuple(map(slice, low, high))] = inside
        inside = placed
    return replace(masks, array=inside, geometry=image.geometry)


def _disagreement(image: Volume, masks: Volume, relation: _Relation) -> str:
    """Return in words how the affine of the masks differs from that of the image."""
    of_patient = orientations.io_orientation(image.geometry.array_affine)[:, 0].astype(int)
    flipped = [int(axis) for axis, direction in relation.order if direction == -1]
    swapped = [axis for axis in range(3) if relation.order[axis, 0] != axis]
    parts = []
    for axes, verb in ((flipped, "flipped"), (swapped, "swapped")):
        if axes:
            names = " and ".join(sorted(_PATIENT_AXES[of_patient[axis]] for axis in axes))
            parts.append(f"its {names} {'axes are' if len(axes) > 1 else 'axis is'} {verb}")
    if parts:
        return f"{' and '.join(parts)} against {image.path}"
    spacings = [
        " x ".join(f"{size:.4g}" for size in volume.geometry.spacing_mm)
        for volume in (image, masks)
    ]
    if spacings[0] != spacings[1]:
        return f"its voxels have {spacings[1]} mm, but those of {image.path} {spacings[0]} mm"
    if masks.array.shape != image.array.shape:
        return f"masks have shape {masks.array.shape}, but {image.path} has {image.array.shape}"
    return f"by its affine it lies {relation.offset_mm:.3g} mm away from {image.path}"


def _remedies(image: Volume, masks: Volume, relation: _Relation) -> str:
    """Return the remedies that work for this pair."""
    remedies = []
    try:
        _place(image, masks, relation)
        remedies.append("--align affine to turn or move the masks onto the image's grid")
    except InputError:
        remedies.append("masks resampled onto the image's grid with nearest neighbours")
    if masks.array.shape == image.array.shape:
        remedies.append("--align voxels to compare voxels with the same index, as in the paper")
    return ", or ".join(remedies)
