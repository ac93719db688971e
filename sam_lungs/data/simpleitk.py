"""NRRD and MetaImage files (`.nrrd`, `.nhdr`, `.mha`, `.mhd`), read with SimpleITK.

SimpleITK is the optional extra `itk`.
"""

import hashlib
import os
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sam_lungs.data import guard
from sam_lungs.data.axes import arrange
from sam_lungs.data.dicom_grid import LPS_TO_RAS
from sam_lungs.data.volume import Geometry, Volume, planes, smallest_dtype
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import sha256_of

if TYPE_CHECKING:
    from SimpleITK import Image, ImageFileReader

IMAGE_IO = {"n": "NrrdImageIO", "m": "MetaImageIO"}  # by the first letter of the suffix
HEADER_BYTES = 1 << 20
HEADER_ENDS = {
    "n": re.compile(r"\r?\n\r?\n"),
    "m": re.compile(r"(?im)^ElementDataFile *=[^\n]*\n"),
}
IS_COMPRESSED = re.compile(r"(?im)^(?:encoding: *gz|CompressedData *= *T)")
DATA_FILE = re.compile(r"(?im)^(?:data ?file:|ElementDataFile *=)[ \t]*(.*?)\s*$")
# ITK takes the axes of a file without these for those of the patient.
IS_ORIENTED = re.compile(
    r"(?im)^(?:space: *(?:RAS|LAS|LPS|(?:right|left)-(?:anterior|posterior)-superior)\s*$"
    r"|(?:TransformMatrix|Rotation|Orientation) *=)"
)
HAS_SPACING = re.compile(r"(?im)^(?:spacings:|space directions:|ElementSpacing *=|ElementSize *=)")
UNITS = re.compile(r"(?im)^(?:space units:|units:|DistanceUnits *=)(.*)$")


def read_simpleitk(path: Path, orientation: str = "paper") -> Volume:
    """Read a NRRD or MetaImage file into an array (rows, columns, slices).

    The array and the geometry are those of the same volume written as NIfTI by ITK. A file that
    does not say where its axes point has a spacing only; without a spacing the geometry is `None`.
    A file of two dimensions is one slice. The dtype is the smallest of uint8, int16 and int32 that
    holds integral values, otherwise float32.

    orientation: see `read_nifti`.

    Raises `InputError` without the extra `itk`, and for a file that is damaged, larger than
    `MAX_VOLUME_BYTES`, or not of finite real numbers in two or three dimensions.
    """
    try:
        import SimpleITK
    except ImportError:
        raise InputError(
            f'{path}: {path.suffix} files need SimpleITK; install it: pip install ".[itk]"'
        ) from None
    with guard.reading(path):
        sha256 = identify_simpleitk(path)
        header = _header(path)
        units = {unit for line in UNITS.findall(header) for unit in re.findall(r"[a-zA-Z]+", line)}
        if foreign := units - {"mm", "millimeter", "millimeters"}:
            raise InputError(f"{path}: its unit is not mm ({', '.join(foreign)}); save it in mm")
        reader = SimpleITK.ImageFileReader()
        reader.SetImageIO(IMAGE_IO[path.suffix[1].lower()])
        reader.SetFileName(str(path))
        try:
            with _quiet_itk():
                reader.ReadImageInformation()
                shape, dtype = _claim(path, reader)
                _, size = guard.check_claim(path, shape, dtype, 0)
                if IS_COMPRESSED.search(header):
                    _check_compressed(path, header, size)
                image = reader.Execute()
        except (RuntimeError, zlib.error):
            raise InputError(f"{path}: damaged, or without its data; save it again") from None
        voxels = SimpleITK.GetArrayViewFromImage(image).T.reshape(shape)
        guard.check_finite(path, voxels)
        voxels = voxels.astype(smallest_dtype(planes(voxels)))
        array, geometry = arrange(path, voxels, _geometry(image, header, shape), orientation)
        return Volume(array, geometry, path, sha256, orientation, source_name=path.name)


def identify_simpleitk(path: Path) -> str:
    """Return the SHA-256 of a file; of a header with a data file, of their two SHA-256s.

    In lower-case hexadecimal. Raises `InputError` when a file cannot be read, or the data are not
    in one file beside the header.
    """
    with guard.reading(path):
        sha256 = sha256_of(path)
        data = _data_path(path, _header(path))
        if data == path:
            return sha256
        return hashlib.sha256(f"{sha256}\n{sha256_of(data)}".encode()).hexdigest()


def _header(path: Path) -> str:
    """Return the text before the voxels; latin-1 keeps the number of bytes."""
    with open(path, "rb") as file:
        start = file.read(HEADER_BYTES).decode("latin-1")
    end = HEADER_ENDS[path.suffix[1].lower()].search(start)
    return start[: end.end()] if end else start


def _data_path(path: Path, header: str) -> Path:
    """Return the file that holds the voxels: the file itself, or one beside it."""
    named = DATA_FILE.search(header)
    if not named or named[1].upper() == "LOCAL":
        return path
    name = named[1]
    if Path(name).name != name or not (path.parent / name).is_file():
        raise InputError(
            f"{path}: its data are not in one file beside it; save it as .nrrd or .mha"
        )
    return path.parent / name


def _check_compressed(path: Path, header: str, size: int) -> None:
    """Check the compressed voxels; ITK does not look at their checksum.

    Raises `zlib.error`, or `RuntimeError` unless there are `size` bytes.
    """
    data, found = _data_path(path, header), 0
    stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib or gzip
    with open(data, "rb") as file:
        file.seek(len(header) if data == path else 0)
        while found <= size and not stream.eof:
            block = stream.unconsumed_tail or file.read(guard.BLOCK_BYTES)
            if not block:
                break
            found += len(stream.decompress(block, guard.BLOCK_BYTES))
    found += len(stream.flush(guard.BLOCK_BYTES))
    if found != size or not stream.eof:
        raise RuntimeError


@contextmanager
def _quiet_itk() -> Iterator[None]:
    """Drop what ITK's libraries print on standard error; their exceptions are enough."""
    sys.stderr.flush()
    saved, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)


def _claim(path: Path, reader: "ImageFileReader") -> tuple[tuple[int, int, int], np.dtype]:
    """Return the shape and dtype in the header; check that each voxel is one real number."""
    import SimpleITK

    kind = SimpleITK.GetPixelIDValueAsString(reader.GetPixelID())
    bits = re.match(r"(\d+)-bit", kind)
    if not bits or reader.GetNumberOfComponents() != 1:
        raise InputError(f"{path}: its voxels are {kind}; save one real number for each")
    if reader.GetDimension() not in (2, 3):
        raise InputError(
            f"{path}: has {reader.GetDimension()} dimensions; save one volume of three"
        )
    return (*reader.GetSize(), 1)[:3], np.dtype(f"i{int(bits[1]) // 8}")


def _geometry(image: "Image", header: str, shape: tuple[int, int, int]) -> Geometry | None:
    if not HAS_SPACING.search(header):
        return None
    spacing_mm = (*image.GetSpacing(), 1.0)[:3]
    if image.GetDimension() == 2 or not IS_ORIENTED.search(header):
        return Geometry(np.diag([*spacing_mm, 1.0]), shape, np.eye(3, 2), is_oriented=False)
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * spacing_mm
    affine[:3, 3] = image.GetOrigin()
    return Geometry(LPS_TO_RAS @ affine, shape, np.eye(3, 2))
