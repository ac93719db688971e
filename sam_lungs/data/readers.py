"""Read a volume of any format, and identify it without parsing it."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from sam_lungs.data.arrays import read_array
from sam_lungs.data.axes import spacing_geometry
from sam_lungs.data.dicom import read_dicom
from sam_lungs.data.dicom_files import identify_dicom
from sam_lungs.data.names import has_suffix
from sam_lungs.data.nifti import read_nifti
from sam_lungs.data.pictures import read_picture
from sam_lungs.data.simpleitk import identify_simpleitk, read_simpleitk
from sam_lungs.data.volume import Volume, file_identity, sidecar_path
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import sha256_of

READERS = {
    **dict.fromkeys((".nii", ".nii.gz"), read_nifti),
    **dict.fromkeys((".npy", ".npz"), read_array),
    ".dcm": read_dicom,
    **dict.fromkeys((".nrrd", ".nhdr", ".mha", ".mhd"), read_simpleitk),
    **dict.fromkeys((".png", ".jpg", ".jpeg"), read_picture),
}


def read_volume(
    path: Path,
    series: str | None = None,
    spacing_mm: tuple[float, ...] | None = None,
    orientation: str = "paper",
) -> Volume:
    """Read a volume, (rows, columns, slices), with the reader for its suffix, in any case.

    path: a file, or a folder of DICOM files. series: see `read_dicom`. orientation: see
        `read_nifti`.
    spacing_mm: between rows, columns and slices, for a file that does not have its own. The last
        may be left out for a single slice, or where the file has its own.

    Raises `InputError` for another suffix, as the readers do, for an option that the file cannot
    take, and when its own spacing differs from `spacing_mm`.
    """
    read = _reader(path)
    if read is None:
        raise InputError(
            f"{path}: not a folder of DICOM files or a {', '.join(READERS)} file; convert it to"
            " one of these"
        )
    if series is not None and read is not read_dicom:
        raise InputError(f"{path}: only DICOM has series; run without --series")
    if orientation != "paper" and read in (read_array, read_picture):
        raise InputError(f"{path}: cannot be turned; run with --orientation paper")
    if read is read_dicom:
        volume = read_dicom(path, series, orientation)
    elif read in (read_array, read_picture):
        volume = read(path)
    else:
        volume = read(path, orientation)
    if spacing_mm is None:
        return volume
    if volume.geometry is None:
        if len(spacing_mm) == 2 and volume.array.shape[2] > 1:
            raise InputError(
                f"{path}: has {volume.array.shape[2]} slices; give their distance, too:"
                " --spacing_mm ROWS,COLUMNS,SLICES"
            )
        return replace(volume, geometry=spacing_geometry(spacing_mm, volume.array.shape))
    own_mm = volume.geometry.spacing_mm[: len(spacing_mm)]
    if not np.allclose(own_mm, spacing_mm, rtol=1e-3):
        own = ",".join(f"{each:.6g}" for each in own_mm)
        raise InputError(f"{path}: its spacing is {own} mm; run without --spacing_mm")
    return volume


def identify(path: Path) -> dict[str, str]:
    """Return `Volume.identity` of a file or a DICOM folder without parsing it.

    Raises `InputError` when it cannot be read.
    """
    read, sidecar_sha256 = _reader(path), None
    if read is read_array and sidecar_path(path).exists():
        sidecar_sha256 = sha256_of(sidecar_path(path))
    identifiers = {read_dicom: identify_dicom, read_simpleitk: identify_simpleitk}
    return file_identity(path, identifiers.get(read, sha256_of)(path), sidecar_sha256)


def _reader(path: Path) -> Callable[..., Volume] | None:
    if path.is_dir():
        return read_dicom
    return next((read for suffix, read in READERS.items() if has_suffix(path, (suffix,))), None)
