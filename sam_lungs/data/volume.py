"""A volume in memory: its array, its position in the patient, and its file."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations


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
