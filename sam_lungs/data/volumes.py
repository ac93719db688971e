"""Volumes on disk: NIfTI and NumPy files, and an image paired with its masks.

In memory a volume is an array `(rows, columns, slices)`. Only this module and `formats` know what
files hold.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations

from sam_lungs.data.geometry import (
    Conversion,
    Geometry,
    is_affine,
    read_conversion,
    write_conversion,
)
from sam_lungs.data.voxels import (
    check_voxels,
    parse_nifti,
    parse_npy,
    parse_npz,
    planes,
    read_file,
    reading,
    scale,
    smallest_dtype,
)
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import replacing, sha256_of

NUMPY_SUFFIXES = (".npy", ".npz")
NIFTI_SUFFIXES = (".nii", ".nii.gz")

# nibabel's notation: row i says which array axis file axis i becomes, and 1, or -1 if flipped.
PAPER_AXES = np.array([[1, 1], [0, 1], [2, 1]])
# Row 0 anterior, column 0 patient right, slice 0 inferior: indices grow towards P, L and S.
RADIOLOGICAL_CODES = ("P", "L", "S")
ORIENTATIONS = ("paper", "radiological")


@dataclass(frozen=True, eq=False)
class Volume:
    """An array `(rows, columns, slices)`, its geometry where it is known, and its file.

    sha256: of the file's bytes as they were read, in lower-case hexadecimal.
    orientation: how `read_nifti` was asked to turn it, one of `ORIENTATIONS`.
    Both are `None` where they do not apply. The array may be read-only.
    """

    array: np.ndarray
    geometry: Geometry | None
    path: Path
    sha256: str | None = None
    orientation: str | None = None

    @property
    def identity(self) -> dict[str, str]:
        """What tells a volume that was read from all others, see `identify`."""
        return identify(self.path, self.sha256)


def volume_name(path: Path) -> str:
    """Return the file's name without the suffix of its format.

    Raises `InputError` for a name that names no folder of results inside another folder.
    """
    name = path.name
    for suffix in (*NUMPY_SUFFIXES, *NIFTI_SUFFIXES[::-1]):
        if name.endswith(suffix):
            name = name.removesuffix(suffix)
            break
    if name in ("", ".", ".."):
        raise InputError(f"{path}: has no name that its results could be called by; rename it")
    return name


def identify(path: Path, sha256: str) -> dict[str, str]:
    """Return what tells a volume's files from all others, as `run.json` has it.

    sha256: of the file at `path`. With an array goes the record of its conversion, if there is one.

    Raises `InputError` when that cannot be read.
    """
    identity = {"file": str(path), "sha256": sha256}
    if path.name.endswith(NUMPY_SUFFIXES) and record_path(path).exists():
        identity["conversion"] = sha256_of(record_path(path))
    return identity


def read_volume(path: Path) -> Volume:
    """Read a `.npy`, `.npz`, `.nii` or `.nii.gz` file, once and into memory.

    A NIfTI file is turned as in the paper (`read_nifti`). The geometry of a NumPy file is read
    from the JSON beside it, where there is one.

    Raises `InputError` for a file of another kind, a broken one, one that the JSON beside it does
    not describe, one of more than `MAX_VOLUME_BYTES`, one that memory is too short for, and voxels
    that are not finite real numbers in three dimensions.
    """
    if path.name.endswith(NIFTI_SUFFIXES):
        return read_nifti(path)
    if not path.name.endswith(NUMPY_SUFFIXES):
        raise InputError(f"{path}: not a .npy, .npz, .nii or .nii.gz file")
    with reading(path):
        content, sha256 = read_file(path)
        geometry = None
        if record_path(path).exists():
            conversion = read_conversion(record_path(path))
            if conversion.array_sha256 != sha256:
                raise InputError(
                    f"{path}: not the array that {record_path(path).name} describes: convert it"
                    " again, or delete the JSON"
                )
            geometry = conversion.geometry
        array = (parse_npz if path.name.endswith(".npz") else parse_npy)(content, path)
        check_voxels(planes(array), path)
        return Volume(array, geometry, path, sha256)


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
    with reading(path):
        content, sha256 = read_file(path)
        stored = parse_nifti(content, path)
        located = is_affine(stored.affine)
        file_to_array = PAPER_AXES
        if orientation == "radiological":
            if not located:
                raise InputError(f"{path}: has no usable affine; use --orientation paper")
            file_to_array = orientations.ornt_transform(
                nib.io_orientation(stored.affine), orientations.axcodes2ornt(RADIOLOGICAL_CODES)
            ).astype(int)
        scaled = scale(stored, path)
        array = orientations.apply_orientation(scaled, file_to_array)
        geometry = None
        if located:
            geometry = Geometry(stored.affine, scaled.shape, file_to_array, path.name)
        return Volume(array, geometry, path, sha256, orientation)


def write_numpy(volume: Volume, path: Path) -> None:
    """Write the array as `.npy` or compressed `.npz`, and how it was made as JSON beside it.

    Raises `InputError` for another suffix or when the files cannot be written.
    """
    check_numpy_path(path)
    # Fortran order lays each slice in one piece.
    array = np.asfortranarray(volume.array)
    with replacing(path) as temporary:
        if path.suffix == ".npy":
            np.save(temporary, array)
        else:
            np.savez_compressed(temporary, volume=array)
        conversion = Conversion(
            volume.path.name,
            volume.sha256,
            volume.orientation,
            sha256_of(temporary),
            volume.geometry,
        )
        # Before the array, so that what a kill leaves between the two is not taken for a pair.
        write_conversion(conversion, record_path(path))


def is_converted(source: Path, path: Path, orientation: str) -> bool:
    """Tell whether `path` is, undamaged, what `source` gives when it is converted."""
    try:
        conversion = read_conversion(record_path(path))
        return (
            conversion.orientation == orientation
            and conversion.source_sha256 == sha256_of(source)
            and conversion.array_sha256 == sha256_of(path)
        )
    except InputError:
        return False


def check_numpy_path(path: Path) -> None:
    """Raise `InputError` unless the name is one that `write_numpy` writes."""
    volume_name(path)
    if path.suffix not in NUMPY_SUFFIXES:
        raise InputError(f"{path}: the output must be a .npy or .npz file")


def write_nifti(array: np.ndarray, geometry: Geometry, path: Path) -> None:
    """Write an array `(rows, columns, slices)` as NIfTI on the grid of the file it came from.

    Axes, affine and spacing are those of that file; the dtype is the smallest that holds the array,
    uint8 for a mask.
    Raises `InputError` when the file cannot be written.
    """
    on_file_grid = orientations.apply_orientation(array, nib.io_orientation(geometry.array_to_file))
    image = nib.Nifti1Image(on_file_grid.astype(smallest_dtype(planes(array))), geometry.affine)
    image.header.set_xyzt_units("mm")
    with replacing(path) as temporary:
        nib.save(image, temporary)


def read_masks(path: Path) -> Volume:
    """Read a label volume: 0 is background, every other value one object.

    Values within 1e-3 of an integer are rounded. Raises `InputError` as `read_volume` does, for
    other fractions, for labels beyond 32 bits, and when all is background.
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
            raise InputError(f"{path}: masks are all background; nothing can be prompted")
        return replace(masks, array=labels)


def read_pair(
    image_path: Path, masks_path: Path, strict_geometry: bool = False
) -> tuple[Volume, Volume, str | None]:
    """Read an image and its masks; return both, and a warning where their affines disagree.

    Raises `InputError` as `read_volume` and `read_masks` do, when the shapes differ, and, with
    `strict_geometry`, unless both affines are known and agree.
    """
    image, masks = read_volume(image_path), read_masks(masks_path)
    return image, masks, check_alike(image, masks, strict_geometry)


def check_alike(image: Volume, masks: Volume, strict_geometry: bool) -> str | None:
    """Return a warning where the affines of an image and its masks disagree, else `None`.

    Raises `InputError` when the shapes differ, and, with `strict_geometry`, unless both affines are
    known and agree.
    """
    if image.array.shape != masks.array.shape:
        raise InputError(
            f"{masks.path}: masks have shape {masks.array.shape}, but {image.path} has"
            f" {image.array.shape}: they are not of one volume, or were converted differently"
        )
    if image.geometry is None or masks.geometry is None:
        if strict_geometry:
            unknown = image.path if image.geometry is None else masks.path
            raise InputError(f"{unknown}: its affine is not known; run without --strict_geometry")
        return None
    if np.allclose(image.geometry.array_affine, masks.geometry.array_affine, atol=1e-3):
        return None
    disagreement = f"{masks.path}: its affine is not that of {image.path}"
    if strict_geometry:
        raise InputError(f"{disagreement}; run without --strict_geometry to overlay the voxels")
    return f"{disagreement}; voxels are overlaid as the paper does"


def record_path(path: Path) -> Path:
    """Return where it is written how an array was converted.

    The whole name, because a JSON of the bare name may be somebody else's, as in BIDS.
    """
    return path.with_name(f"{path.name}.json")
