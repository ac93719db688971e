"""Read a volume file of any format, label masks, and a case: an image with its masks."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from sam_lungs.data.arrays import read_array
from sam_lungs.data.case import Case
from sam_lungs.data.guard import reading
from sam_lungs.data.nifti import read_nifti
from sam_lungs.data.volume import (
    NUMPY_SUFFIXES,
    Volume,
    file_identity,
    planes,
    sidecar_path,
    smallest_dtype,
)
from sam_lungs.data.windowing import choose_window
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import sha256_of

READERS = {".npy": read_array, ".npz": read_array, ".nii": read_nifti, ".nii.gz": read_nifti}


def read_volume(path: Path) -> Volume:
    """Read a volume, (rows, columns, slices), with the reader for its suffix.

    Raises `InputError` for another suffix, and as `read_array` and `read_nifti` do.
    """
    for suffix, read in READERS.items():
        if path.name.endswith(suffix):
            return read(path)
    raise InputError(f"{path}: not a {', '.join(READERS)} file; convert it to one of these")


def identify(path: Path) -> dict[str, str]:
    """Return `Volume.identity` of a file without parsing the file.

    Raises `InputError` when it cannot be read.
    """
    has_sidecar = path.name.endswith(NUMPY_SUFFIXES) and sidecar_path(path).exists()
    sidecar_sha256 = sha256_of(sidecar_path(path)) if has_sidecar else None
    return file_identity(path, sha256_of(path), sidecar_sha256)


def read_masks(path: Path) -> Volume:
    """Read a label volume: 0 is background, every other value is one object.

    Values within 1e-3 of an integer are rounded. The array is uint8, int16 or int32.

    Raises `InputError` as `read_volume` does, for other fractions, for labels of more than 32 bits,
    and when all voxels are background.
    """
    masks = read_volume(path)
    with reading(path):
        labels = masks.array
        if labels.dtype.kind == "f":
            labels = np.rint(labels)
            if np.abs(masks.array - labels).max() > 1e-3:
                raise InputError(f"{path}: masks must hold integral labels; is this an image?")
        dtype = smallest_dtype(planes(labels))
        if dtype == np.float32:
            raise InputError(f"{path}: labels must fit into 32 bits; is this an image?")
        labels = labels.astype(dtype, copy=False)
        if not labels.any():
            raise InputError(f"{path}: masks are all background; there is nothing to prompt")
        return replace(masks, array=labels)


def check_same_grid(image: Volume, masks: Volume, strict: bool = False) -> str | None:
    """Return a warning when the affines of an image and its masks disagree, else `None`.

    Raises `InputError` when the shapes differ, and, if `strict`, unless both affines are known and
    agree.
    """
    if image.array.shape != masks.array.shape:
        raise InputError(
            f"{masks.path}: masks have shape {masks.array.shape}, but {image.path} has"
            f" {image.array.shape}; give masks of the same volume, converted in the same way"
        )
    if image.geometry is None or masks.geometry is None:
        if strict:
            unknown = image.path if image.geometry is None else masks.path
            raise InputError(f"{unknown}: its affine is not known; run without --strict_geometry")
        return None
    if np.allclose(image.geometry.array_affine, masks.geometry.array_affine, atol=1e-3):
        return None
    disagreement = f"{masks.path}: its affine differs from that of {image.path}"
    if strict:
        raise InputError(f"{disagreement}; run without --strict_geometry to ignore this")
    return f"{disagreement}; as in the paper, voxels with the same index are compared anyway"


def read_case(
    image_path: Path, masks_path: Path, window: str = "auto", strict_geometry: bool = False
) -> Case:
    """Read an image and its masks, and collect every fault instead of raising the first.

    window: see `choose_window`. strict_geometry: see `check_same_grid`.
    """
    image = masks = chosen = warning = None
    faults = []

    @contextmanager
    def collecting(prefix: str = "") -> Iterator[None]:
        try:
            yield
        except InputError as error:
            faults.append(f"{prefix}{error}")

    with collecting():
        image = read_volume(image_path)
    with collecting():
        masks = read_masks(masks_path)
    if image:
        with collecting(f"{image_path}: "):
            chosen = choose_window(window, image.array)
    if image and masks:
        with collecting():
            warning = check_same_grid(image, masks, strict_geometry)
    return Case(image_path, masks_path, image, masks, chosen, warning, faults)
