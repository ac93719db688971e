"""A small patient that the tests of several file formats share."""

import itertools
import shlex
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel import orientations

from sam_lungs.data.readers import read_volume
from sam_lungs.utils.errors import InputError

ALL_ORIENTATIONS = [
    "".join(codes)
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*axes)
]

# 3 x 4 x 5 different voxels of 0.5 x 0.75 x 2 mm; the axes grow towards P, L, S.
PATIENT = np.arange(60, dtype=np.int16).reshape(3, 4, 5) - 7
PATIENT_AFFINE = np.array([[0, -0.75, 0, 9], [-0.5, 0, 0, -8], [0, 0, 2, 30], [0, 0, 0, 1.0]])


def stored_as(codes: str) -> nib.Nifti1Image:
    """Return the patient as a file whose axes grow towards `codes`."""
    return nib.Nifti1Image(PATIENT, PATIENT_AFFINE).as_reoriented(
        orientations.ornt_transform(
            orientations.axcodes2ornt("PLS"), orientations.axcodes2ornt(codes)
        )
    )


def nifti_of(
    path: Path, version=1, endianness="<", sform=None, qform=None, shape=PATIENT.shape, **fields
) -> Path:
    """Write the patient as NIfTI with the fields of its header as given.

    sform, qform: (affine, code); without, the code is 0. fields: set last.
    """
    header = {1: nib.Nifti1Header, 2: nib.Nifti2Header}[version](endianness=endianness)
    header.set_data_dtype(np.int16)
    header.set_data_shape(shape)
    if qform:
        header.set_qform(*qform)
    if sform:
        header.set_sform(*sform)
    for name, value in {"vox_offset": header.single_vox_offset, "xyzt_units": 2, **fields}.items():
        header[name] = value
    voxels = PATIENT.astype(np.dtype(np.int16).newbyteorder(endianness))
    path.write_bytes(header.binaryblock + bytes(4) + voxels.tobytes("F"))
    return path


def follow_remedy(path: Path) -> Path:
    """Read a file that is refused, run the command that the message names, return its file."""
    with pytest.raises(InputError) as refused:
        read_volume(path)
    message = str(refused.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    program, _, code = shlex.split(message[message.index("python -c") :])
    assert program == "python"
    exec(code, {})
    (new,) = Path.cwd().glob("new.n*")
    return new
