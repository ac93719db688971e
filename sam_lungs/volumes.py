"""Volumes on disk: NIfTI and NumPy files, and an image paired with its masks.

In memory a volume is an array `(rows, columns, slices)`. Only this module knows file formats.
"""

import gzip
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import nibabel as nib
import numpy as np
from nibabel import orientations

from sam_lungs.errors import InputError
from sam_lungs.files import replacing
from sam_lungs.geometry import Geometry, is_affine, read_geometry, write_geometry

NUMPY_SUFFIXES = (".npy", ".npz")
NIFTI_SUFFIXES = (".nii", ".nii.gz")

# nibabel's notation: row i says which array axis file axis i becomes, and 1, or -1 if flipped.
PAPER_AXES = np.array([[1, 1], [0, 1], [2, 1]])
# Row 0 anterior, column 0 patient right, slice 0 inferior: indices grow towards P, L and S.
RADIOLOGICAL_CODES = ("P", "L", "S")
ORIENTATIONS = ("paper", "radiological")

# A damaged header makes nibabel log its repairs; what is wrong is told once, by our own error.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


@dataclass(frozen=True, eq=False)
class Volume:
    """An array `(rows, columns, slices)`, its geometry where it is known, and its file."""

    array: np.ndarray
    geometry: Geometry | None
    path: Path


def volume_name(path: Path) -> str:
    """Return the file's name without the suffix of its format."""
    for suffix in (*NUMPY_SUFFIXES, *NIFTI_SUFFIXES[::-1]):
        if path.name.endswith(suffix):
            return path.name.removesuffix(suffix)
    return path.name


def read_volume(path: Path) -> Volume:
    """Read a `.npy` (as a memory map), `.npz`, `.nii` or `.nii.gz` file.

    A NIfTI file is turned as in the paper (`read_nifti`). The geometry of a NumPy file is read
    from the JSON beside it, where there is one.

    Raises `InputError` for a file of another kind, a broken one, and voxels that are not finite
    real numbers in three dimensions.
    """
    if path.name.endswith(NIFTI_SUFFIXES):
        return read_nifti(path)
    if not path.name.endswith(NUMPY_SUFFIXES):
        raise InputError(f"{path}: not a .npy, .npz, .nii or .nii.gz file")
    array = _three_dimensional(_load_numpy(path), path)
    _check_voxels(array, path)
    geometry_path = _geometry_path(path)
    geometry = read_geometry(geometry_path) if geometry_path.exists() else None
    if geometry is not None and geometry.array_shape != array.shape:
        raise InputError(
            f"{geometry_path}: describes a volume of shape {geometry.array_shape}, but"
            f" {path.name} has {array.shape}: convert it again, or delete the JSON"
        )
    return Volume(array, geometry, path)


def read_nifti(path: Path, orientation: str = "paper") -> Volume:
    """Read a `.nii` or `.nii.gz` file into an array `(rows, columns, slices)`.

    orientation: `paper` swaps the first two axes of the file and moves nothing else;
        `radiological` turns the volume by its affine so that row 0 is anterior, column 0 the
        patient's right, and slice 0 inferior.

    The file's scaling is applied. Integral values come in the smallest of uint8, int16 and int32
    that holds them, all others in float32. Without a usable affine there is no geometry.

    Raises `InputError` as `read_volume` does, and when `radiological` finds no usable affine.
    """
    if not path.name.endswith(NIFTI_SUFFIXES):
        raise InputError(f"{path}: not a NIfTI file (.nii or .nii.gz)")
    stored, affine = _load_nifti(path)
    stored = _three_dimensional(stored, path)
    _check_voxels(stored, path)

    located = is_affine(affine)
    file_to_array = PAPER_AXES
    if orientation == "radiological":
        if not located:
            raise InputError(f"{path}: has no usable affine; use --orientation paper")
        file_to_array = orientations.ornt_transform(
            nib.io_orientation(affine), orientations.axcodes2ornt(RADIOLOGICAL_CODES)
        ).astype(int)
    array = orientations.apply_orientation(stored, file_to_array)
    geometry = Geometry(affine, stored.shape, file_to_array, path.name) if located else None
    return Volume(array.astype(_smallest_dtype(array), copy=False), geometry, path)


def write_numpy(volume: Volume, path: Path) -> None:
    """Write the array as `.npy` or compressed `.npz`, and its geometry as JSON beside it.

    Raises `InputError` for another suffix or when the files cannot be written.
    """
    check_numpy_path(path)
    # Fortran order lays each slice in one piece, so that a memory map reads only what it is asked.
    array = np.asfortranarray(volume.array)
    geometry_path = _geometry_path(path)
    with replacing(path) as temporary:
        if path.suffix == ".npy":
            np.save(temporary, array)
        else:
            np.savez_compressed(temporary, volume=array)
        if volume.geometry is None:
            geometry_path.unlink(missing_ok=True)
        else:
            write_geometry(volume.geometry, geometry_path)


def check_numpy_path(path: Path) -> None:
    """Raise `InputError` unless the suffix is one that `write_numpy` writes."""
    if path.suffix not in NUMPY_SUFFIXES:
        raise InputError(f"{path}: the output must be a .npy or .npz file")


def write_nifti(array: np.ndarray, geometry: Geometry, path: Path) -> None:
    """Write an array `(rows, columns, slices)` as NIfTI on the grid of the file it came from.

    Axes, affine and spacing are those of that file; the dtype is the smallest that holds the array,
    uint8 for a mask.
    Raises `InputError` when the file cannot be written.
    """
    on_file_grid = orientations.apply_orientation(array, nib.io_orientation(geometry.array_to_file))
    image = nib.Nifti1Image(on_file_grid.astype(_smallest_dtype(array)), geometry.affine)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)


def read_masks(path: Path) -> Volume:
    """Read a label volume: 0 is background, every other value one object.

    Values within 1e-3 of an integer are rounded. Raises `InputError` as `read_volume` does, for
    other fractions, for labels beyond 32 bits, and when all is background.
    """
    masks = read_volume(path)
    labels = masks.array
    if labels.dtype.kind == "f":
        labels = np.rint(labels)
        if np.abs(masks.array - labels).max() > 1e-3:
            raise InputError(f"{path}: masks must hold integral labels; is this an image?")
    dtype = _smallest_dtype(labels)
    if dtype == np.float32:
        raise InputError(f"{path}: labels must fit into 32 bits; is this an image?")
    labels = labels.astype(dtype, copy=False)
    if not labels.any():
        raise InputError(f"{path}: masks are all background; nothing can be prompted")
    return Volume(labels, masks.geometry, path)


def read_pair(
    image_path: Path, masks_path: Path, strict_geometry: bool = False
) -> tuple[Volume, Volume, str | None]:
    """Read an image and its masks; return both, and a warning where their affines disagree.

    Raises `InputError` as `read_volume` and `read_masks` do, when the shapes differ, and, with
    `strict_geometry`, unless both affines are known and agree.
    """
    image, masks = read_volume(image_path), read_masks(masks_path)
    if image.array.shape != masks.array.shape:
        raise InputError(
            f"{masks_path}: masks have shape {masks.array.shape}, but {image_path} has"
            f" {image.array.shape}: they are not of one volume, or were converted differently"
        )
    if image.geometry is None or masks.geometry is None:
        if strict_geometry:
            unknown = image_path if image.geometry is None else masks_path
            raise InputError(f"{unknown}: its affine is not known; run without --strict_geometry")
        return image, masks, None
    if np.allclose(image.geometry.array_affine, masks.geometry.array_affine, atol=1e-3):
        return image, masks, None
    disagreement = f"{masks_path}: its affine is not that of {image_path}"
    if strict_geometry:
        raise InputError(f"{disagreement}; run without --strict_geometry to overlay the voxels")
    return image, masks, f"{disagreement}; voxels are overlaid as the paper does"


def _geometry_path(path: Path) -> Path:
    """The whole name, because a JSON of the bare name may be somebody else's, as in BIDS."""
    return path.with_name(f"{path.name}.json")


def _open(path: Path) -> BinaryIO:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; nifti_to_numpy.py makes arrays") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _load_numpy(path: Path) -> np.ndarray:
    with _open(path) as file:
        magic = b"\x93NUMPY" if path.suffix == ".npy" else b"PK"
        if file.read(len(magic)) != magic:
            raise InputError(f"{path}: not a NumPy {path.suffix} file; make it again")
        file.seek(0)
        try:
            if path.suffix == ".npy":
                return np.load(path, mmap_mode="r", allow_pickle=False)
            arrays = np.load(file, allow_pickle=False)
            (array,) = (arrays[name] for name in arrays.files)
            return np.asarray(array)
        except Exception as error:  # whatever damaged bytes lead zip and NumPy into
            raise InputError(f"{path}: {_why(error)}") from error


def _why(error: Exception) -> str:
    """One line for what NumPy, zip or nibabel found wrong with a file."""
    reason = " ".join(str(error).split())
    if "allow_pickle" in reason or "Python objects" in reason:
        return "holds pickled Python objects, which are refused; save plain numbers"
    return f"broken, truncated, or not one array; make it again ({reason})"


def _load_nifti(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the stored array with the file's scaling applied, and the affine, or zeros if none."""
    with _open(path) as file:
        try:
            # All at once, which checks a gzip's checksum; nibabel alone would stop short of it.
            content = gzip.decompress(file.read()) if path.suffix == ".gz" else file.read()
            is_nifti2 = nib.Nifti2Header.may_contain_header(content)
            image = (nib.Nifti2Image if is_nifti2 else nib.Nifti1Image).from_bytes(content)
            # Without either code nibabel makes an affine up.
            located = image.header["sform_code"] or image.header["qform_code"]
            affine = image.affine if located else np.zeros((4, 4))
            return np.asanyarray(image.dataobj), affine
        except Exception as error:  # whatever damaged bytes lead nibabel, gzip and NumPy into
            raise InputError(f"{path}: not a NIfTI file, or {_why(error)}") from error


def _three_dimensional(array: np.ndarray, path: Path) -> np.ndarray:
    while array.ndim > 3 and array.shape[-1] == 1:
        array = array[..., 0]
    if array.ndim != 3 or array.size == 0:
        raise InputError(f"{path}: has shape {array.shape}; a volume must have three dimensions")
    return array


def _check_voxels(array: np.ndarray, path: Path) -> None:
    if array.dtype.kind not in "biuf":
        raise InputError(f"{path}: voxels are {array.dtype}; a volume holds real numbers")
    # Not isfinite: what is too large for float32 would become infinite when it is converted.
    if array.dtype.kind == "f" and not all(
        (np.abs(plane) <= np.finfo(np.float32).max).all() for plane in _planes(array)
    ):
        raise InputError(f"{path}: has NaN or infinite voxels; replace them by numbers first")


def _smallest_dtype(array: np.ndarray) -> np.dtype:
    """The smallest of uint8, int16 and int32 that holds all values, else float32."""
    if array.dtype.kind != "f" or all((plane == np.rint(plane)).all() for plane in _planes(array)):
        low, high = array.min(), array.max()
        for dtype in (np.uint8, np.int16, np.int32):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return np.dtype(dtype)
    return np.dtype(np.float32)


def _planes(array: np.ndarray) -> np.ndarray:
    """The slices one by one: a whole volume at once would need several times its memory."""
    return np.moveaxis(array, 2, 0)
