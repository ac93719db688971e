"""Checks of volume files before they are parsed: their size, and the claims of their headers.

A file may be damaged or malicious. Memory is used only for bytes that exist, and for at most
`MAX_VOLUME_BYTES` of them. nibabel, NumPy, gzip and zipfile do the parsing.
"""

import hashlib
import io
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from sam_lungs.data.names import NIFTI_SUFFIXES, NUMPY_SUFFIXES, has_suffix
from sam_lungs.data.volume import planes
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import check_regular

# 1024 x 1024 x 2048 int16 voxels, several times the largest chest CT.
MAX_VOLUME_BYTES = 4 << 30
BLOCK_BYTES = 1 << 20
GZIP_MAGIC = b"\x1f\x8b"


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
            kinds = {NUMPY_SUFFIXES: "NumPy", NIFTI_SUFFIXES: "NIfTI"}
            kind = next((kind for ends, kind in kinds.items() if has_suffix(path, ends)), "image")
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

    Returns the shape in three dimensions, and the byte position after the last voxel. Two
    dimensions are one slice. Of more than three, axes of length 1 are dropped at both ends.

    Raises `InputError` unless they are real numbers in three dimensions and not too large.
    """
    if dtype.kind not in "biuf":
        part = f"[{dtype.names[0]!r}]" if dtype.names else ".real" if dtype.kind == "c" else ""
        remedy = f"save one of its numbers: {saving(path, part)}" if part else "make it again"
        raise InputError(f"{path}: its voxels are {dtype}, not real numbers; {remedy}")
    kept = list(shape)
    while len(kept) > 3 and kept[-1] == 1:
        kept.pop()
    while len(kept) > 3 and kept[0] == 1:
        kept.pop(0)
    if len(kept) == 2:
        kept.append(1)
    if len(kept) != 3 or min(kept) < 1:
        # Slices along the fourth axis are one volume.
        part = "[:, :, 0]" if kept[2:3] == [1] else f"[...{', 0' * (len(kept) - 3)}]"
        remedy = f"save one volume: {saving(path, part)}" if len(kept) > 3 else "make it again"
        raise InputError(
            f"{path}: has shape {shape}; a volume must have three dimensions; {remedy}"
        )
    end = offset + math.prod(kept) * dtype.itemsize
    _check_limit(path, end)
    return tuple(kept), end


def check_size(path: Path, size: int, end: int, may_follow: int = 0) -> None:
    """Raise `InputError` unless `size` is at least `end`, and at most `may_follow` bytes more."""
    if not end <= size <= end + may_follow:
        raise InputError(
            f"{path}: its header claims {end} bytes, but it has {'more' if size > end else size};"
            " make it again"
        )


def gunzip(content: bytes) -> Iterator[bytes]:
    """Yield the bytes in a gzip file, at most one block at a time.

    As in gzip itself, the file may have several members, and bytes after them are ignored.
    """
    stream = io.BytesIO(content)
    while content.startswith(GZIP_MAGIC, stream.tell()):
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)  # 16: gzip, with its checksum
        while not member.eof:
            packed = member.unconsumed_tail or stream.read(BLOCK_BYTES >> 4)
            block = member.decompress(packed, BLOCK_BYTES)
            if not (packed or block):
                raise EOFError("truncated")
            yield block
        stream.seek(-len(member.unused_data), io.SEEK_CUR)


def decompress(start: bytes, blocks: Iterator[bytes], limit: int) -> bytearray:
    """Return `start` and the blocks after it, until there are more than `limit` bytes.

    Blocks are read to their end, because gzip and zipfile check the checksum there.
    """
    content = bytearray(start)
    while len(content) <= limit and (block := next(blocks, None)) is not None:
        content += block
    return content


def check_finite(path: Path, array: np.ndarray) -> None:
    """Raise `InputError` if a voxel is not finite as float32, see `smallest_dtype`."""
    for plane in planes(array):
        if plane.dtype.kind == "f" and not (np.abs(plane) <= np.finfo(np.float32).max).all():
            raise InputError(f"{path}: has NaN or infinite voxels; replace them by numbers first")


def saving(path: Path, part: str) -> str:
    """Return a command that saves a part of a volume in a new file.

    part: Python code that follows the array, for example `[..., 0]`.
    """
    if not has_suffix(path, NUMPY_SUFFIXES):
        code = (
            f"import nibabel as n, numpy as np; i = n.load('{path}');"
            f" a = np.asarray(i.dataobj){part};"
            " n.save(n.Nifti1Image(a, None, i.header, dtype=a.dtype), 'new.nii.gz')"
        )
    elif has_suffix(path, (".npz",)):
        code = f"import numpy as np; a, = np.load('{path}').values(); np.save('new.npy', a{part})"
    else:
        code = f"import numpy as np; np.save('new.npy', np.load('{path}', 'r'){part})"
    return f'python -c "{code}"'


def _check_limit(path: Path, size: int) -> None:
    if size > MAX_VOLUME_BYTES:
        remedy = "crop it to the chest"
        if has_suffix(path, NUMPY_SUFFIXES + NIFTI_SUFFIXES):
            remedy += f", or, if it is float64, save float32: {saving(path, '.astype(np.float32)')}"
        raise InputError(
            f"{path}: has {size} bytes, but at most {MAX_VOLUME_BYTES} are read; {remedy}"
        )
