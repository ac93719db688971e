"""NIfTI files (`.nii`, `.nii.gz`): read a volume, write a mask."""

import logging
import math
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations
from nibabel.volumeutils import apply_read_scaling

from sam_lungs.data import guard
from sam_lungs.data.axes import PAPER_AXES, arrange
from sam_lungs.data.names import NIFTI_SUFFIXES, has_suffix
from sam_lungs.data.volume import Geometry, Volume, planes, smallest_dtype
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import atomic_write

MAX_HEADER_BYTES = 16 << 20  # with all extensions

IMAGES = {348: nib.Nifti1Image, 540: nib.Nifti2Image}  # by the size of the header
# Fields that place the voxels in space.
GEOMETRY_FIELDS = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
    *("srow_x", "srow_y", "srow_z"),
)
MILLIMETRES_PER_UNIT = {1: 1000, 2: 1, 3: 1e-3}  # by the first three bits of xyzt_units

# nibabel logs repairs of damaged headers; our own error is enough.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


def read_nifti(path: Path, orientation: str = "paper") -> Volume:
    """Read a `.nii` or `.nii.gz` file into an array (rows, columns, slices).

    orientation: `paper` swaps the first two axes of the file and changes nothing else;
        `radiological` reorients the volume by its affine: row 0 is anterior, column 0 the patient's
        right, slice 0 inferior.

    The first bytes say whether the file is compressed. The scaling of the file is applied. The
    dtype is the smallest of uint8, int16 and int32 that holds integral values, otherwise float32.
    The geometry is that of the sform, or else of the qform, or, without either code, the spacing of
    pixdim; `None` where these are unusable.

    Raises `InputError` for a file that is not a valid NIfTI file, is larger than
    `MAX_VOLUME_BYTES` or the memory, or does not hold finite real numbers in three dimensions; and
    when `radiological` finds no orientation.
    """
    if not has_suffix(path, NIFTI_SUFFIXES):
        raise InputError(f"{path}: not a NIfTI file (.nii or .nii.gz)")
    with guard.reading(path):
        content, sha256 = guard.read_bytes(path)
        header, fields, stored = _parse(content, path)
        geometry = _geometry(header, fields, stored.shape)
        _check_scaling(path, header)
        scaled = _scale(stored, *header.get_slope_inter())
        guard.check_finite(path, scaled)
        array, geometry = arrange(path, scaled, geometry, orientation)
        return Volume(array, geometry, path, sha256, orientation, source_name=path.name)


def write_nifti(array: np.ndarray, geometry: Geometry, path: Path) -> None:
    """Write an array (rows, columns, slices) as NIfTI, on the grid of the file it came from.

    The fields of the header that place that file in space are copied unchanged, so that every
    program shows both at the same place. For a file that was no NIfTI file, sform and qform are its
    affine. The dtype is the smallest that holds the array, uint8 for a mask.

    Raises `InputError` when the file cannot be written.
    """
    on_file_grid = orientations.apply_orientation(array, nib.io_orientation(geometry.array_to_file))
    voxels = on_file_grid.astype(smallest_dtype(planes(array)))
    fields = geometry.header or {}
    image = IMAGES[fields.get("sizeof_hdr", 348)](voxels, None)
    if not fields:
        image.header.set_xyzt_units("mm")
        image.header.set_zooms(nib.affines.voxel_sizes(geometry.affine))
        if geometry.is_oriented:
            image.header.set_sform(geometry.affine, code=1)
            image.header.set_qform(geometry.affine, code=1)
    for name, value in fields.items():
        image.header[name] = value
    with atomic_write(path) as temporary:
        nib.save(image, temporary)


def _parse(content: bytes, path: Path) -> tuple[nib.Nifti1Header, dict, np.ndarray]:
    """Return what a NIfTI file holds.

    The header as nibabel repairs it; `Geometry.header`, not repaired; and the stored voxels,
    unscaled, along the axes of the file.
    """
    compressed = content.startswith(guard.GZIP_MAGIC)
    blocks = guard.gunzip(content) if compressed else iter(())
    start = guard.decompress(b"", blocks, nib.Nifti2Header.sizeof_hdr) if compressed else content
    is_nifti2 = nib.Nifti2Header.may_contain_header(start)
    header_class = nib.Nifti2Header if is_nifti2 else nib.Nifti1Header
    block = start[: header_class.sizeof_hdr]
    header, raw = header_class(block), header_class(block, check=False)
    offset = header.get_data_offset()
    # A smaller offset is for a separate .img file; here it would read the header as voxels.
    if not header.single_vox_offset <= offset <= MAX_HEADER_BYTES:
        raise InputError(
            f"{path}: its header says that voxels begin at byte {offset}; make it again"
        )
    dtype = header.get_data_dtype()
    shape, end = guard.check_claim(path, header.get_data_shape(), dtype, offset)
    if compressed:
        content = guard.decompress(start, blocks, end + guard.BLOCK_BYTES)
    guard.check_size(path, len(content), end, may_follow=guard.BLOCK_BYTES)
    voxels = np.frombuffer(content, dtype, math.prod(shape), offset)
    fields = {name: raw[name].tolist() for name in GEOMETRY_FIELDS}
    fields["sizeof_hdr"] = header.sizeof_hdr
    return header, fields, voxels.reshape(shape, order="F")


def _geometry(
    header: nib.Nifti1Header, fields: dict, shape: tuple[int, int, int]
) -> Geometry | None:
    """Return the geometry that a header gives, with `paper` axes; `None` if it is unusable.

    shape: of the voxels in three dimensions. The axes of a header are its first three. If one of
    them was dropped, the header does not say where the voxels are.
    """
    axes = header.get_data_shape()[:3]
    if axes != shape[: len(axes)]:
        return None
    # nibabel repairs a spacing of 0 to 1, which is right for nothing but the slice of a 2-D file.
    header["pixdim"][1 : 1 + len(axes)] = np.abs(fields["pixdim"][1 : 1 + len(axes)])
    # By rounding a quaternion may be longer than 1. As in the standard's own library, w is 0 then.
    if sum(float(header[f"quatern_{axis}"]) ** 2 for axis in "bcd") > 1:
        header.quaternion_threshold = -np.inf
    affines = [header.get_sform()] * (fields["sform_code"] > 0)
    affines += [header.get_qform()] * (fields["qform_code"] > 0)
    is_oriented = bool(affines)
    affines = affines or [np.diag([*header["pixdim"][1:4], 1])]
    scale = MILLIMETRES_PER_UNIT.get(fields["xyzt_units"] & 7, 1)
    affines = [np.diag([scale] * 3 + [1]) @ affine for affine in affines]
    affine = next((affine for affine in affines if _is_usable(affine)), None)
    return None if affine is None else Geometry(affine, shape, PAPER_AXES, is_oriented, fields)


def _check_scaling(path: Path, header: nib.Nifti1Header) -> None:
    """Raise `InputError` for a slope without an intercept."""
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope and math.isfinite(slope) and not math.isfinite(intercept):
        code = f"import SimpleITK as s; s.WriteImage(s.ReadImage('{path}'), 'new.nii.gz')"
        raise InputError(
            f"{path}: its header scales voxels by {slope:g}, but has no intercept ({intercept:g});"
            f' if 0 is right, pip install .[itk], and write it again: python -c "{code}"'
        )


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
