"""NumPy files (`.npy`, `.npz`), each with a JSON sidecar that describes its conversion."""

import hashlib
import io
import json
import math
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
from numpy.lib import format as npy_format

from sam_lungs.data import guard
from sam_lungs.data.names import NUMPY_SUFFIXES, case_name, has_suffix
from sam_lungs.data.volume import Geometry, Volume, sidecar_path
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import atomic_write, check_regular, sha256_of

NPY_HEADER_BYTES = 1024  # NumPy writes 128


def read_array(path: Path) -> Volume:
    """Read a `.npy` file, or a `.npz` file of one array, (rows, columns, slices).

    The geometry is read from the sidecar, where there is one. An array without a sidecar may have
    two dimensions, or axes of length 1 at either end: (1, rows, columns) is one slice, as nnU-Net,
    MONAI and SimpleITK save it.

    Raises `InputError` for a file that is not a valid NumPy file, has another hash than in its
    sidecar, is larger than `MAX_VOLUME_BYTES` or the memory, or does not hold finite real numbers
    in three dimensions.
    """
    with guard.reading(path):
        content, sha256 = guard.read_bytes(path)
        record, geometry, sidecar_sha256 = {}, None, None
        if sidecar_path(path).exists():
            sidecar_sha256 = sha256_of(sidecar_path(path))
            record = _read_sidecar(sidecar_path(path))
            if record["array_sha256"] != sha256:
                raise InputError(
                    f"{path}: not the array that {sidecar_path(path).name} describes; convert the"
                    " volume again, or delete the JSON file"
                )
            if "affine" in record:
                geometry = Geometry(
                    np.array(record["affine"], dtype=np.float64),
                    tuple(record["file_shape"]),
                    np.array(record["file_to_array"], dtype=int),
                    record.get("is_oriented", True),  # not in the records of older versions
                    record.get("header"),
                )
        array = _parse(content, path)
        if not record and array.shape[0] == 1 < min(array.shape[1:]):
            array = np.moveaxis(array, 0, 2)
        guard.check_finite(path, array)
        return Volume(
            array,
            geometry,
            path,
            sha256,
            sidecar_sha256=sidecar_sha256,
            source_name=record.get("source", path.name),
            is_picture=record.get("is_picture", False),
            is_placed=record.get("is_placed", False),
        )


def write_numpy(volume: Volume, path: Path, reading: dict | None = None) -> None:
    """Write the array as `.npy` or compressed `.npz`, and its sidecar.

    path: see `check_numpy_path`. reading: the options that the volume was read with, for
        `is_converted`.

    Raises `InputError` when a file cannot be written.
    """
    # In Fortran order each slice is contiguous.
    array = np.asfortranarray(volume.array)
    with atomic_write(path) as temporary:
        if path.suffix == ".npy":
            np.save(temporary, array)
        else:
            np.savez_compressed(temporary, volume=array)
        # The sidecar is written first. If a kill leaves it beside an old array, the hashes differ.
        _write_sidecar(volume, sha256_of(temporary), sidecar_path(path), reading)


def is_converted(
    source_sha256: str, path: Path, orientation: str, reading: dict | None = None
) -> bool:
    """Return whether the array file at `path` is intact and was made from the source in this way.

    source_sha256: of the source, see `readers.identify`. reading: as for `write_numpy`.
    """
    try:
        record = _read_sidecar(sidecar_path(path))
        return (
            record.get("orientation_option") == orientation
            and record.get("source_sha256") == source_sha256
            and record.get("reading") == json.loads(json.dumps(reading or None))
            and record.get("array_sha256") == sha256_of(path)
        )
    except InputError:
        return False


def source_of(path: Path, sidecar_sha256: str | None) -> tuple[str, str] | None:
    """Return the name and the SHA-256 of the file that an array file was converted from.

    sidecar_sha256: of its sidecar. None when there is no such sidecar.
    """
    sidecar = sidecar_path(path)
    if not (sidecar_sha256 and sidecar.is_file() and sha256_of(sidecar) == sidecar_sha256):
        return None
    record = _read_sidecar(sidecar)
    return record["source"], record["source_sha256"]


def check_numpy_path(path: Path) -> None:
    """Raise `InputError` unless `write_numpy` can write a file of this name."""
    case_name(path)
    if path.suffix not in NUMPY_SUFFIXES:
        raise InputError(f"{path}: the output must be a .npy or .npz file")


def _parse(content: bytes, path: Path) -> np.ndarray:
    """Return the array in the bytes of a `.npy` or `.npz` file."""
    stream, size = io.BytesIO(content), len(content)
    is_archive = has_suffix(path, (".npz",))
    if is_archive:
        archive = zipfile.ZipFile(stream)
        names = [name.removesuffix(".npy") for name in archive.namelist()]
        if not names:
            raise InputError(f"{path}: holds no array; make it again")
        if len(names) > 1:
            code = f"import numpy as np; np.save('new.npy', np.load('{path}')[{names[0]!r}])"
            raise InputError(
                f"{path}: must hold one array, but holds {names}; save one of them:"
                f' python -c "{code}"'
            )
        member = archive.infolist()[0]
        stream, size = archive.open(member), member.file_size
    start = stream.read(NPY_HEADER_BYTES)
    header = io.BytesIO(start)
    # Version 3 is for field names, which a volume does not have.
    parsers = {(1, 0): npy_format.read_array_header_1_0, (2, 0): npy_format.read_array_header_2_0}
    shape, is_fortran, dtype = parsers[npy_format.read_magic(header)](header)
    shape, end = guard.check_claim(path, shape, dtype, header.tell())
    guard.check_size(path, size, end)
    if is_archive:
        blocks = iter(partial(stream.read, guard.BLOCK_BYTES), b"")
        content = guard.decompress(start, blocks, end)
    voxels = np.frombuffer(content, dtype, math.prod(shape), header.tell())
    return voxels.reshape(shape, order="F" if is_fortran else "C")


def _write_sidecar(volume: Volume, array_sha256: str, path: Path, reading: dict | None) -> None:
    record = {
        "source": volume.source_name or volume.path.name,
        "source_sha256": volume.sha256,
        "array_sha256": array_sha256,
        "orientation_option": volume.orientation,
        "is_picture": volume.is_picture,
        "is_placed": volume.is_placed,
    }
    if reading:
        record["reading"] = reading
    if geometry := volume.geometry:
        record |= {
            "is_oriented": geometry.is_oriented,
            "orientation": geometry.orientation,
            "spacing_mm": geometry.spacing_mm,
            "affine": geometry.affine.tolist(),
            "file_shape": geometry.file_shape,
            "file_to_array": geometry.file_to_array.tolist(),
            "header": geometry.header,
        }
    record["record_sha256"] = _sha256_of_record(record)
    lines = ",\n".join(f'  "{key}": {json.dumps(value)}' for key, value in record.items())
    with atomic_write(path) as temporary:
        temporary.write_text(f"{{\n{lines}\n}}\n")


def _read_sidecar(path: Path) -> dict:
    try:
        check_regular(path)
        record = json.loads(path.read_bytes())
        # The hash detects a damaged digit in the affine.
        if record.pop("record_sha256") != _sha256_of_record(record):
            raise ValueError("damaged")
        return record
    except Exception as error:  # a damaged file raises almost any type
        raise InputError(
            f"{path}: not a conversion record; convert the volume again, or delete this file"
        ) from error


def _sha256_of_record(record: dict) -> str:
    return hashlib.sha256(json.dumps(record).encode()).hexdigest()
