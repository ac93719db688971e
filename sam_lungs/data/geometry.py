"""Where a volume's array lies in the patient, and the JSON that tells how it was converted."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations

from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import check_regular, replacing

NOT_A_RECORD = "not the record of a conversion; convert the volume again, or delete this file"
MAX_RECORD_BYTES = 1 << 20


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


@dataclass(frozen=True, eq=False)
class Conversion:
    """How an array was made from a NIfTI file.

    source: name of the file; orientation: `paper` or `radiological`, as the conversion was asked
    for; geometry: `None` without a usable affine. The SHA-256 are of the bytes of the NIfTI file
    and of the `.npy` or `.npz` file, in lower-case hexadecimal.
    """

    source: str
    source_sha256: str | None
    orientation: str | None
    array_sha256: str
    geometry: Geometry | None


def is_affine(affine: np.ndarray) -> bool:
    """Tell whether a (4, 4) matrix maps voxels one to one into space, in float32 too."""
    with np.errstate(over="ignore"):
        written = affine.astype(np.float32).astype(np.float64)
    sizes = nib.affines.voxel_sizes(written)
    if not np.isfinite(written).all() or not sizes.all():
        return False
    return np.linalg.matrix_rank(written[:3, :3] / sizes) == 3


def write_conversion(conversion: Conversion, path: Path) -> None:
    """Write a conversion as JSON, with the spacing and orientation that follow from its geometry.

    Raises `InputError` when the file cannot be written.
    """
    record = {
        "source": conversion.source,
        "source_sha256": conversion.source_sha256,
        "array_sha256": conversion.array_sha256,
        "orientation_option": conversion.orientation,
    }
    if geometry := conversion.geometry:
        record |= {
            "orientation": geometry.orientation,
            "spacing_mm": geometry.spacing_mm,
            "affine": geometry.affine.tolist(),
            "file_shape": geometry.file_shape,
            "file_to_array": geometry.file_to_array.tolist(),
        }
    record["record_sha256"] = _sha256_of_record(record)
    lines = ",\n".join(f'  "{key}": {json.dumps(value)}' for key, value in record.items())
    with replacing(path) as temporary:
        temporary.write_text(f"{{\n{lines}\n}}\n")


def read_conversion(path: Path) -> Conversion:
    """Read what `write_conversion` wrote; raises `InputError` when it is anything else."""
    try:
        check_regular(path)
        with open(path, "rb") as file:
            record = json.loads(file.read(MAX_RECORD_BYTES))
        # A digit that is damaged would be another affine.
        if record.pop("record_sha256") != _sha256_of_record(record):
            raise ValueError("damaged")
        geometry = None
        if "affine" in record:
            geometry = Geometry(
                np.array(record["affine"], dtype=np.float64),
                tuple(record["file_shape"]),
                np.array(record["file_to_array"], dtype=int),
                record["source"],
            )
        return Conversion(
            record["source"],
            record["source_sha256"],
            record["orientation_option"],
            record["array_sha256"],
            geometry,
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: {NOT_A_RECORD}") from error


def _sha256_of_record(record: dict) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()
