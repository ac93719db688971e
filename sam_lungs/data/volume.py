"""A volume in memory: its array, its position in the patient, and its file."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations

from sam_lungs.utils.errors import InputError

NUMPY_SUFFIXES = (".npy", ".npz")
NIFTI_SUFFIXES = (".nii.gz", ".nii")
# Of all files that can be read; in lower case, longer ones first.
SUFFIXES = (
    *NIFTI_SUFFIXES,
    *NUMPY_SUFFIXES,
    *(".dcm", ".nrrd", ".nhdr", ".mha", ".mhd"),
    *(".png", ".jpg", ".jpeg"),
)
# Names that datasets with a folder for each patient give to every file: TotalSegmentator
# (`s0001/ct.nii.gz`), KiTS (`case_00000/imaging.nii.gz`, `segmentation.nii.gz`).
GENERIC_STEMS = {
    *("ct", "cxr", "image", "images", "img", "imaging", "scan", "volume", "vol", "data"),
    *("dicom", "series", "mask", "masks", "label", "labels", "lung", "lungs"),
    *("seg", "segmentation", "segmentations"),
}


@dataclass(frozen=True, eq=False)
class Geometry:
    """The position of a volume in the patient, and how its array was made from its file.

    affine: (4, 4) float64, voxel indices of the file -> millimetres, RAS+.
    file_shape: voxels along the three axes of the file.
    file_to_array: (3, 2) int, an orientation as in `nibabel.orientations`: row i holds the array
        axis of file axis i, and 1, or -1 if the axis was flipped.
    is_oriented: if not, only the spacing is known, and the affine is its diagonal matrix.
    header: {field of a NIfTI header: value} for the fields that place the volume in space, as in
        the file; `None` if it was no NIfTI file.
    """

    affine: np.ndarray
    file_shape: tuple[int, int, int]
    file_to_array: np.ndarray
    is_oriented: bool = True
    header: dict | None = None

    @property
    def array_to_file(self) -> np.ndarray:
        """(4, 4) float64, indices (row, column, slice) of the array -> indices of the file."""
        return orientations.inv_ornt_aff(self.file_to_array, self.file_shape)

    @property
    def array_affine(self) -> np.ndarray:
        """(4, 4) float64, indices (row, column, slice) of the array -> millimetres, RAS+."""
        return self.affine @ self.array_to_file

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring rows, columns and slices."""
        return tuple(float(size) for size in nib.affines.voxel_sizes(self.array_affine))

    @property
    def orientation(self) -> str | None:
        """Three letters of LRPAIS: the directions in which rows, columns and slices increase.

        `None` if the orientation is not known.
        """
        return "".join(nib.aff2axcodes(self.array_affine)) if self.is_oriented else None


@dataclass(frozen=True, eq=False)
class Volume:
    """An array (rows, columns, slices) with its geometry and its file.

    array: real numbers; may be read-only. geometry: `None` where the file has no usable one.
    sha256: of the bytes of the file that was read, in lower-case hexadecimal.
    orientation: the option of `read_nifti`, `None` for an array file.
    sidecar_sha256: of the sidecar of an array file, `None` without one.
    source_name: of the file that an array was converted from; the name of `path` if it was not.
    is_picture: of 8 or 16 bits as displayed (PNG, JPEG), not Hounsfield units.
    is_placed: its slices have no order of their own; only its affine says where they are.
    """

    array: np.ndarray
    geometry: Geometry | None
    path: Path
    sha256: str | None = None
    orientation: str | None = None
    sidecar_sha256: str | None = None
    source_name: str | None = None
    is_picture: bool = False
    is_placed: bool = False

    @property
    def identity(self) -> dict[str, str]:
        """The path and hashes of the files that were read, for `run.json`."""
        return file_identity(self.path, self.sha256, self.sidecar_sha256)


def case_name(path: Path) -> str:
    """Return the name of a volume, and of its results folder: of this file or DICOM folder.

    The suffix is left out. A name that many data sets give to every file is preceded by the name of
    its folder: `s0001/ct.nii.gz` is `s0001_ct`.

    Raises `InputError` when the name cannot be used for a results folder.
    """
    absolute = Path(os.path.abspath(path))
    suffix = next((end for end in SUFFIXES if has_suffix(absolute, (end,))), "")
    names = [absolute.name[: len(absolute.name) - len(suffix)]]
    for folder in absolute.parents:
        if names[0].lower() not in GENERIC_STEMS or not folder.name:
            break
        names.insert(0, folder.name)
    name = "_".join(names)
    if name in ("", "..") or name.startswith(".") or not name.isprintable():
        raise InputError(f"{path}: results cannot be named after this file; rename it")
    return name


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Return whether a file's name ends with one of the suffixes, in upper or lower case."""
    return path.name.lower().endswith(suffixes)


def file_identity(path: Path, sha256: str, sidecar_sha256: str | None) -> dict[str, str]:
    """Return the path of a volume's file and the hashes of it and its sidecar."""
    identity = {"file": str(path), "sha256": sha256}
    return identity | ({"conversion": sidecar_sha256} if sidecar_sha256 else {})


def sidecar_path(path: Path) -> Path:
    """Return the path of the JSON file that describes the conversion of an array file.

    It is the full name plus `.json`: in BIDS, `image.json` belongs to another program.
    """
    return path.with_name(f"{path.name}.json")


def smallest_dtype(planes: Iterable[np.ndarray]) -> np.dtype:
    """Return the smallest of uint8, int16 and int32 that holds all values, else float32."""
    low, high = np.inf, -np.inf
    for plane in planes:
        if plane.dtype.kind == "f" and (plane != np.rint(plane)).any():
            return np.dtype(np.float32)
        low, high = min(low, plane.min()), max(high, plane.max())
    for dtype in (np.uint8, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.float32)


def planes(array: np.ndarray) -> np.ndarray:
    """Return a view with the slice axis first, for work on one slice at a time (less memory)."""
    return np.moveaxis(array, 2, 0)
