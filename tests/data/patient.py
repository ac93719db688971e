"""A small patient that the tests of several file formats share."""

import itertools

import nibabel as nib
import numpy as np
from nibabel import orientations

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
