"""NIfTI files (`.nii`, `.nii.gz`): read a volume, write a mask."""

import gzip
import io
import logging
import math
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations
from nibabel.volumeutils import apply_read_scaling

from sam_lungs.data import guard
from sam_lungs.data.volume import NIFTI_SUFFIXES, Geometry, Volume, planes, smallest_dtype
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import atomic_write

# As in `nibabel.orientations`: the first two axes of the file are swapped.
PAPER_AXES = np.array([[1, 1], [0, 1], [2, 1]])
# Row 0 anterior, column 0 patient right, slice 0 inferior: indices grow towards P, L and S.
RADIOLOGICAL_CODES = ("P", "L", "S")
ORIENTATIONS = ("paper", "radiological")

MAX_HEADER_BYTES = 16 << 20  # with all extensions

# nibabel logs repairs of damaged headers; our own error is enough.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


def read_nifti(path: Path, orientation: str = "paper") -> Volume:
    """Read a `.nii` or `.nii.gz` file into an array (rows, columns, slices).

    orientation: `paper` swaps the first two axes of the file and changes nothing else;
        `radiological` reorients the volume by its affine: row 0 is anterior, column 0 the patient's
        right, slice 0 inferior.

    The scaling of the file is applied. The dtype is the smallest of uint8, int16 and int32 that
    holds integral values, otherwise float32. Without a usable affine the geometry is `None`.

    Raises `InputError` for a file that is not a valid NIfTI file, is larger than
    `MAX_VOLUME_BYTES` or the memory, or does not hold finite real numbers in three dimensions; and
    when `radiological` finds no usable affine.
    """
    if not path.name.endswith(NIFTI_SUFFIXES):
        raise InputError(f"{path}: not a NIfTI file (.nii or .nii.gz)")
    with guard.reading(path):
        content, sha256 = guard.read_bytes(path)
        header, stored = _parse(content, path)
        # Without either code nibabel invents an affine.
        has_affine = header["sform_code"] or header["qform_code"]
        affine = header.get_best_affine() if has_affine else np.zeros((4, 4))
        is_usable, file_to_array = _is_usable(affine), PAPER_AXES
        if orientation == "radiological":
            if not is_usable:
                raise InputError(f"{path}: has no usable affine; use --orientation paper")
            file_to_array = orientations.ornt_transform(
                nib.io_orientation(affine), orientations.axcodes2ornt(RADIOLOGICAL_CODES)
            ).astype(int)
        scaled = _scale(stored, *header.get_slope_inter())
        guard.check_finite(path, scaled)
        array = orientations.apply_orientation(scaled, file_to_array)
        geometry = Geometry(affine, scaled.shape, file_to_array) if is_usable else None
        return Volume(array, geometry, path, sha256, orientation)


def write_nifti(array: np.ndarray, geometry: Geometry, path: Path) -> None:
    """Write an array (rows, columns, slices) as NIfTI, on the grid of the file it came from.

    Axes, affine and spacing are those of that file; the dtype is the smallest that holds the array,
    uint8 for a mask.

    Raises `InputError` when the file cannot be written.
    """
    on_file_grid = orientations.apply_orientation(array, nib.io_orientation(geometry.array_to_file))
    image = nib.Nifti1Image(on_file_grid.astype(smallest_dtype(planes(array))), geometry.affine)
    image.header.set_xyzt_units("mm")
    with atomic_write(path) as temporary:
        nib.save(image, temporary)


def _parse(content: bytes, path: Path) -> tuple[nib.Nifti1Header, np.ndarray]:
    """Return the header and the stored voxels, unscaled, along the axes of the file."""
    compressed = path.name.endswith(".gz")
    stream = gzip.GzipFile(fileobj=io.BytesIO(content)) if compressed else io.BytesIO(content)
    start = stream.read(nib.Nifti2Header.sizeof_hdr)
    is_nifti2 = nib.Nifti2Header.may_contain_header(start)
    header_class = nib.Nifti2Header if is_nifti2 else nib.Nifti1Header
    header = header_class(start[: header_class.sizeof_hdr])
    offset = header.get_data_offset()
    # A smaller offset is for a separate .img file; here it would read the header as voxels.
    if not header.single_vox_offset <= offset <= MAX_HEADER_BYTES:
        raise InputError(
            f"{path}: its header says that voxels begin at byte {offset}; make it again"
        )
    dtype = header.get_data_dtype()
    shape, end = guard.check_claim(path, header.get_data_shape(), dtype, offset)
    if compressed:
        content = guard.decompress(start, stream, end + guard.BLOCK_BYTES)
    guard.check_size(path, len(content), end, may_follow=guard.BLOCK_BYTES)
    voxels = np.frombuffer(content, dtype, math.prod(shape), offset)
    return header, voxels.reshape(shape, order="F")


def _is_usable(affine: np.ndarray) -> bool:
    """Return whether a (4, 4) affine maps voxels one to one into space, also as float32."""
    with np.errstate(over="ignore"):
        in_float32 = affine.astype(np.float32).astype(np.float64)
        sizes = nib.affines.voxel_sizes(in_float32).astype(np.float32)
    if not (np.isfinite(in_float32).all() and np.isfinite(sizes).all() and sizes.all()):
        return False
    return np.linalg.matrix_rank(in_float32[:3, :3] / sizes) == 3


def _scale(stored: np.ndarray, slope: float | None, inter: float | None) -> np.ndarray:
    """Return the voxels times slope plus inter, in the smallest dtype.

    Each slice is scaled twice, because the scaled volume as a whole would be float64.
    """
    dtype = smallest_dtype(apply_read_scaling(plane, slope, inter) for plane in planes(stored))
    if slope in (None, 1) and not inter:
        return stored.astype(dtype, copy=False)
    scaled = np.empty(stored.shape, dtype, order="F")
    for target, plane in zip(planes(scaled), planes(stored), strict=True):
        target[...] = apply_read_scaling(plane, slope, inter)
    return scaled
