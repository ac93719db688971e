"""Checks of volume files before they are parsed: their size, and the claims of their headers.

A file may be damaged or malicious. Memory is used only for bytes that exist, and for at most
`MAX_VOLUME_BYTES` of them. nibabel, NumPy, gzip and zipfile do the parsing.
"""

import hashlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np

from sam_lungs.data.volume import NUMPY_SUFFIXES, planes
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import check_regular

# 1024 x 1024 x 2048 int16 voxels, several times the largest chest CT.
MAX_VOLUME_BYTES = 4 << 30
BLOCK_BYTES = 1 << 20


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every error in the block into a one-line `InputError`, and silence NumPy's warnings."""
    try:
        with np.errstate(all="ignore"):
            yield
    except InputError:
        raise
    except Exception as error:  # a damaged file raises almost any type
        if isinstance(error, FileNotFoundError):
            message = "no such file; check the path (nifti_to_numpy.py makes arrays)"
        elif isinstance(error, MemoryError):
            message = "too little memory to read it; close other programs, or use a larger machine"
        elif isinstance(error, OSError) and error.strerror:
            message = f"cannot be read ({error.strerror}); check the path"
        else:
            kind = "NumPy" if path.name.endswith(NUMPY_SUFFIXES) else "NIfTI"
            reason = " ".join(str(error).split())
            message = f"not a valid {kind} file ({reason}); make it again"
        raise InputError(f"{path}: {message}") from error


def read_bytes(path: Path) -> tuple[bytes, str]:
    """Return a file's bytes and their SHA-256 in lower-case hexadecimal.

    The file is read once, so that the hash is of the bytes that are parsed. It is not
    memory-mapped: when a mapped file is truncated, the process is killed.

    Raises `InputError` for a file that is too large or not a regular file, `OSError` when it cannot
    be read.
    """
    check_regular(path)
    _check_limit(path, path.stat().st_size)
    content = path.read_bytes()
    return content, hashlib.sha256(content).hexdigest()


def check_claim(
    path: Path, shape: tuple[int, ...], dtype: np.dtype, offset: int
) -> tuple[tuple[int, int, int], int]:
    """Check the claims of a header: voxels of this shape and dtype, starting at byte `offset`.

    Returns the shape without trailing axes of length 1, and the byte position after the last voxel.

    Raises `InputError` unless they are real numbers in three dimensions and not too large.
    """
    if dtype.kind not in "biuf":
        raise InputError(f"{path}: its voxels are {dtype}; a volume must hold real numbers")
    kept = shape[:3] if set(shape[3:]) <= {1} else shape
    if len(kept) != 3 or min(kept) < 1:
        raise InputError(f"{path}: has shape {shape}; a volume must have three dimensions")
    end = offset + math.prod(kept) * dtype.itemsize
    _check_limit(path, end)
    return kept, end


def check_size(path: Path, size: int, end: int, may_follow: int = 0) -> None:
    """Raise `InputError` unless `size` is at least `end`, and at most `may_follow` bytes more."""
    if not end <= size <= end + may_follow:
        raise InputError(
            f"{path}: its header claims {end} bytes, but it has {'more' if size > end else size};"
            " make it again"
        )


def decompress(start: bytes, stream: BinaryIO, limit: int) -> bytearray:
    """Return `start` and the rest of a stream, at most one block more than `limit` bytes.

    The stream is read to its end, because gzip and zipfile check the checksum there.
    """
    content = bytearray(start)
    while len(content) <= limit and (block := stream.read(BLOCK_BYTES)):
        content += block
    return content


def check_finite(path: Path, array: np.ndarray) -> None:
    """Raise `InputError` if a voxel is not finite as float32, see `smallest_dtype`."""
    for plane in planes(array):
        if plane.dtype.kind == "f" and not (np.abs(plane) <= np.finfo(np.float32).max).all():
            raise InputError(f"{path}: has NaN or infinite voxels; replace them by numbers first")


def _check_limit(path: Path, size: int) -> None:
    if size > MAX_VOLUME_BYTES:
        raise InputError(
            f"{path}: has {size} bytes, but at most {MAX_VOLUME_BYTES} are read; crop it to the"
            " chest, or check whether it is damaged"
        )
