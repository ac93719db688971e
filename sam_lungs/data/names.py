"""Suffixes of the files that can be read, and the name of a case; imports no reader."""

import os
from pathlib import Path

from sam_lungs.utils.errors import InputError

NUMPY_SUFFIXES = (".npy", ".npz")
NIFTI_SUFFIXES = (".nii.gz", ".nii")
# Of all files that can be read; in lower case, longer ones first.
SUFFIXES = (
    *NIFTI_SUFFIXES,
    *NUMPY_SUFFIXES,
    *(".dcm", ".nrrd", ".nhdr", ".mha", ".mhd"),
    *(".png", ".jpg", ".jpeg"),
)
# Names that datasets with a folder for each patient give to every file: TotalSegmentator
# (`s0001/ct.nii.gz`), KiTS (`case_00000/imaging.nii.gz`, `segmentation.nii.gz`).
GENERIC_STEMS = {
    *("ct", "cxr", "image", "images", "img", "imaging", "scan", "volume", "vol", "data"),
    *("dicom", "series", "mask", "masks", "label", "labels", "lung", "lungs"),
    *("seg", "segmentation", "segmentations"),
}


def case_name(path: Path) -> str:
    """Return the name of a volume, and of its results folder: of this file or DICOM folder.

    The suffix is left out. A name that many data sets give to every file is preceded by the name of
    its folder: `s0001/ct.nii.gz` is `s0001_ct`.

    Raises `InputError` when the name cannot be used for a results folder.
    """
    absolute = Path(os.path.abspath(path))
    suffix = next((end for end in SUFFIXES if has_suffix(absolute, (end,))), "")
    names = [absolute.name[: len(absolute.name) - len(suffix)]]
    for folder in absolute.parents:
        if names[0].lower() not in GENERIC_STEMS or not folder.name:
            break
        names.insert(0, folder.name)
    name = "_".join(names)
    if name in ("", "..") or name.startswith(".") or not name.isprintable():
        raise InputError(f"{path}: results cannot be named after this file; rename it")
    return name


def has_suffix(path: Path, suffixes: tuple[str, ...]) -> bool:
    """Return whether a file's name ends with one of the suffixes, in upper or lower case."""
    return path.name.lower().endswith(suffixes)
