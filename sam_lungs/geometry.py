"""Where a volume's array lies in the patient: affine, axes, spacing, and the JSON they are in."""

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations

from sam_lungs.errors import InputError
from sam_lungs.files import replacing

NOT_A_GEOMETRY = "not the geometry of a volume; convert the volume again, or delete this file"


@dataclass(frozen=True, eq=False)
class Geometry:
    """Where a volume lies in the patient, and how its array was made from its file.

    affine: (4, 4) float64, voxel indices of the file -> millimetres, RAS+, as the file has it.
    file_shape: voxels along the three axes of the file.
    file_to_array: (3, 2) int, for each file axis the array axis it became and 1 or -1 (flipped).
    source: name of the file.
    """

    affine: np.ndarray
    file_shape: tuple[int, int, int]
    file_to_array: np.ndarray
    source: str

    @property
    def array_to_file(self) -> np.ndarray:
        """(4, 4) float64, indices (row, column, slice) of the array -> voxels of the file."""
        return orientations.inv_ornt_aff(self.file_to_array, self.file_shape)

    @property
    def array_affine(self) -> np.ndarray:
        """(4, 4) float64, indices (row, column, slice) of the array -> millimetres, RAS+."""
        return self.affine @ self.array_to_file

    @property
    def array_shape(self) -> tuple[int, ...]:
        """Rows, columns and slices of the array."""
        return tuple(self.file_shape[axis] for axis in np.argsort(self.file_to_array[:, 0]))

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring rows, columns and slices."""
        return tuple(float(size) for size in nib.affines.voxel_sizes(self.array_affine))

    @property
    def orientation(self) -> str:
        """Three letters of LRPAIS: the side of the patient that rows, columns, slices grow to."""
        return "".join(nib.aff2axcodes(self.array_affine))


def is_affine(affine: np.ndarray) -> bool:
    """Tell whether a (4, 4) matrix maps voxels one to one into space."""
    return bool(np.isfinite(affine).all()) and np.linalg.matrix_rank(affine[:3, :3]) == 3


def write_geometry(geometry: Geometry, path: Path) -> None:
    """Write a geometry as JSON, with the spacing and orientation that follow from it.

    Raises `InputError` when the file cannot be written.
    """
    record = {
        "source": geometry.source,
        "orientation": geometry.orientation,
        "spacing_mm": geometry.spacing_mm,
        "affine": geometry.affine.tolist(),
        "file_shape": geometry.file_shape,
        "file_to_array": geometry.file_to_array.tolist(),
    }
    lines = ",\n".join(f'  "{key}": {json.dumps(value)}' for key, value in record.items())
    with replacing(path) as temporary:
        temporary.write_text(f"{{\n{lines}\n}}\n")


def read_geometry(path: Path) -> Geometry:
    """Read what `write_geometry` wrote; raises `InputError` when it is anything else."""
    try:
        record = json.loads(path.read_text())
        geometry = Geometry(
            np.array(record["affine"], dtype=np.float64).reshape(4, 4),
            tuple(int(size) for size in record["file_shape"]),
            np.array(record["file_to_array"], dtype=int).reshape(3, 2),
            str(record["source"]),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: {NOT_A_GEOMETRY}") from error
    axes, flips = geometry.file_to_array.T
    if not (
        is_affine(geometry.affine)
        and len(geometry.file_shape) == 3
        and sorted(axes) == [0, 1, 2]
        and set(flips) <= {-1, 1}
    ):
        raise InputError(f"{path}: {NOT_A_GEOMETRY}")
    return geometry
