"""The formats of volumes: bytes of NIfTI and NumPy files -> voxels, or what is wrong with them.

Nothing that a file claims is believed before it is held against the bytes that are there.
"""

import gzip
import hashlib
import io
import logging
import math
import os
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
from nibabel.volumeutils import apply_read_scaling
from numpy.lib import format as npy_format

from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import check_regular

# 1024 x 1024 x 2048 int16 voxels, several times the largest chest CT: a header that claims more is
# damaged, or a small file that would fill the memory.
MAX_VOLUME_BYTES = 4 << 30
TOO_LARGE = (
    f"more than the {MAX_VOLUME_BYTES} that a volume may have; cut it to the chest, or check it"
)
BLOCK_BYTES = 1 << 20  # decompressed at once, and what may follow the voxels of a NIfTI file
NPY_HEADER_BYTES = 1024  # NumPy's own take 128
NIFTI_HEADER_BYTES = 16 << 20  # with all extensions

# A damaged header makes nibabel log its repairs; what is wrong is told once, by our own error.
logging.getLogger("nibabel.global").setLevel(logging.CRITICAL)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the machine refuses while a file is read into `InputError`.

    What is NaN or overflows is refused, and so needs no warning.
    """
    try:
        with np.errstate(all="ignore"):
            yield
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; nifti_to_numpy.py makes arrays") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except MemoryError:
        raise InputError(
            f"{path}: too little memory to read it; close other programs, or use a larger machine"
        ) from None


def read_file(path: Path) -> tuple[bytes, str]:
    """Return a file's bytes and their SHA-256 in lower-case hexadecimal.

    Raises `InputError` for a file that is too large, or no regular one.

    Not mapped: a file that is cut off while it is mapped kills the process, and one that is
    replaced after it was hashed is another.
    """
    check_regular(path)
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size > MAX_VOLUME_BYTES + BLOCK_BYTES:
            raise InputError(f"{path}: has {size} bytes, {TOO_LARGE}")
        content = file.read(size)
    return content, hashlib.sha256(content).hexdigest()


class _Npy(NamedTuple):
    """What the header of a `.npy` says; offset: where the voxels begin."""

    shape: tuple[int, int, int]
    dtype: np.dtype
    order: str
    offset: int

    def array(self, content: bytes | bytearray) -> np.ndarray:
        voxels = np.frombuffer(content, self.dtype, math.prod(self.shape), self.offset)
        return voxels.reshape(self.shape, order=self.order)


class Nifti(NamedTuple):
    """The voxels of a NIfTI file, unscaled, along its own axes, and what its header says of them.

    slope, inter: `None` where nothing is scaled; affine: zeros where there is none.
    """

    voxels: np.ndarray
    slope: float | None
    inter: float | None
    affine: np.ndarray


class _Blocks(io.BytesIO):
    """Bytes that are read in blocks; the directory of a zip that has many members is larger."""

    def read(self, size: int | None = -1) -> bytes:
        if size is not None and size > BLOCK_BYTES:
            raise zipfile.BadZipFile("its directory is too large")
        return super().read(size)


@contextmanager
def _parsing(path: Path, expected: str) -> Iterator[None]:
    """Turn whatever damaged bytes lead NumPy, zip, gzip and nibabel into, into `InputError`."""
    try:
        yield
    except (InputError, MemoryError):
        raise
    except Exception as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"{path}: not {expected}, or broken or truncated; make it again ({reason})"
        ) from error


def parse_npy(content: bytes, path: Path) -> np.ndarray:
    """Return the voxels of a `.npy` file, (rows, columns, slices), without a copy.

    path: where it is from, for what is said. Raises `InputError` unless it holds just one array of
    real numbers in three dimensions.
    """
    with _parsing(path, "a NumPy .npy file"):
        return _parse_npy_header(content, len(content), path).array(content)


def parse_npz(content: bytes, path: Path) -> np.ndarray:
    """Return the voxels of a `.npz` file, as `parse_npy` does."""
    with _parsing(path, "a NumPy .npz file of one array"):
        archive = zipfile.ZipFile(_Blocks(content))
        (member,) = archive.infolist()
        # NumPy writes no other, and some of the others may ask for gigabytes to begin with.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise zipfile.BadZipFile("its compression is not NumPy's")
        with archive.open(member) as stream:
            voxels = bytearray(stream.read(NPY_HEADER_BYTES))
            header = _parse_npy_header(voxels, member.file_size, path)
            # To the end, where zipfile compares the checksum.
            while block := stream.read(BLOCK_BYTES):
                voxels += block
        return header.array(voxels)


def _parse_npy_header(start: bytes | bytearray, size: int, path: Path) -> _Npy:
    """Parse the header of a `.npy` of `size` bytes that begins with `start`."""
    stream = io.BytesIO(start[:NPY_HEADER_BYTES])
    version = npy_format.read_magic(stream)
    # Version 3 is for names of fields, which no volume has.
    read = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    shape, in_fortran_order, dtype = read[version](stream)
    _check_dtype(dtype, path)
    shape = _three_dimensional(shape, path)
    claimed, offset = math.prod(shape) * dtype.itemsize, stream.tell()
    _check_size(claimed, path)
    if claimed != size - offset:
        raise InputError(
            f"{path}: its header claims {claimed} bytes of voxels, but there are {size - offset};"
            " make it again"
        )
    return _Npy(shape, dtype, "F" if in_fortran_order else "C", offset)


def parse_nifti(content: bytes, path: Path) -> Nifti:
    """Return what a NIfTI file holds; the voxels without a copy, beyond what decompressing makes.

    path: where it is from, for what is said, and `.gz` where it is compressed. Raises `InputError`
    unless it holds real numbers in three dimensions, all of them there.
    """
    with _parsing(path, "a NIfTI file"):
        compressed = path.name.endswith(".gz")
        stream = gzip.GzipFile(fileobj=io.BytesIO(content)) if compressed else io.BytesIO(content)
        start = stream.read(nib.Nifti2Header.sizeof_hdr)
        is_nifti2 = nib.Nifti2Header.may_contain_header(start)
        header_class = nib.Nifti2Header if is_nifti2 else nib.Nifti1Header
        header = header_class(start[: header_class.sizeof_hdr])
        dtype = header.get_data_dtype()
        _check_dtype(dtype, path)
        shape = _three_dimensional(header.get_data_shape(), path)
        offset = header.get_data_offset()
        # Zero, or that of an .img file beside the header, would take the header for voxels.
        if not header.single_vox_offset <= offset <= NIFTI_HEADER_BYTES:
            raise InputError(
                f"{path}: its header says that voxels begin at byte {offset}; make it again"
            )
        end = offset + math.prod(shape) * dtype.itemsize
        _check_size(end, path)
        if compressed:
            content = bytearray(start)
            # To the end, where gzip compares the checksum, but not to that of an endless one.
            while len(content) <= end + BLOCK_BYTES and (block := stream.read(BLOCK_BYTES)):
                content += block
        if not end <= len(content) <= end + BLOCK_BYTES:
            raise InputError(
                f"{path}: its header claims {end} bytes, but it has"
                f" {'more' if len(content) > end else len(content)}; make it again"
            )
        voxels = np.frombuffer(content, dtype, math.prod(shape), offset).reshape(shape, order="F")
        # Without either code nibabel makes an affine up.
        located = header["sform_code"] or header["qform_code"]
        affine = header.get_best_affine() if located else np.zeros((4, 4))
        return Nifti(voxels, *header.get_slope_inter(), affine)


def scale(stored: Nifti, path: Path) -> np.ndarray:
    """Return the voxels with the file's scaling applied, in the smallest dtype.

    Raises `InputError` for voxels that are not finite.

    Slice by slice and more than once, because all of them at once are float64.
    """

    def scaled_planes() -> Iterator[np.ndarray]:
        for plane in planes(stored.voxels):
            yield apply_read_scaling(plane, stored.slope, stored.inter)

    check_voxels(scaled_planes(), path)
    dtype = smallest_dtype(scaled_planes())
    if stored.slope in (None, 1) and not stored.inter:
        return stored.voxels.astype(dtype, copy=False)
    scaled = np.empty(stored.voxels.shape, dtype, order="F")
    for target, plane in zip(planes(scaled), scaled_planes(), strict=True):
        target[...] = plane
    return scaled


def _three_dimensional(shape: tuple[int, ...], path: Path) -> tuple[int, int, int]:
    """Return a shape without trailing axes of one voxel beyond the third."""
    kept = shape[:3] if set(shape[3:]) <= {1} else shape
    if len(kept) != 3 or min(kept) < 1:
        raise InputError(f"{path}: has shape {shape}; a volume must have three dimensions")
    return kept


def _check_dtype(dtype: np.dtype, path: Path) -> None:
    if dtype.hasobject:
        raise InputError(f"{path}: holds pickled Python objects, which are refused; save numbers")
    if dtype.kind not in "biuf":
        raise InputError(f"{path}: voxels are {dtype}; a volume holds real numbers")


def _check_size(size: int, path: Path) -> None:
    if size > MAX_VOLUME_BYTES:
        raise InputError(f"{path}: its header claims {size} bytes, {TOO_LARGE}")


def check_voxels(planes: Iterable[np.ndarray], path: Path) -> None:
    """Raise `InputError` for a voxel that is not finite, in float32 too, which it may become."""
    for plane in planes:
        if plane.dtype.kind == "f" and not (np.abs(plane) <= np.finfo(np.float32).max).all():
            raise InputError(f"{path}: has NaN or infinite voxels; replace them by numbers first")


def smallest_dtype(planes: Iterable[np.ndarray]) -> np.dtype:
    """Return the smallest of uint8, int16 and int32 that holds all values, else float32."""
    low, high = math.inf, -math.inf
    for plane in planes:
        if plane.dtype.kind == "f" and (plane != np.rint(plane)).any():
            return np.dtype(np.float32)
        low, high = min(low, plane.min()), max(high, plane.max())
    for dtype in (np.uint8, np.int16, np.int32):
        if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
            return np.dtype(dtype)
    return np.dtype(np.float32)


def planes(array: np.ndarray) -> np.ndarray:
    """Return the slices one by one: a whole volume at once would need several times its memory."""
    return np.moveaxis(array, 2, 0)
