#!/usr/bin/env python
r"""Convert NIfTI volumes to NumPy arrays (rows, columns, slices), with a JSON beside each.

python nifti_to_numpy.py \
    --input_file_path datasets/zenodo/COVID-19-CT-Seg_20cases/coronacases_001.nii.gz \
    --output_file_path working_data/image_coronacases_001.npy

What is converted already, from the same file and in the same way, stays as it is.
"""

import argparse
from pathlib import Path

from sam_lungs.data.volumes import (
    ORIENTATIONS,
    check_numpy_path,
    is_converted,
    read_nifti,
    write_numpy,
)
from sam_lungs.utils.errors import InputError, report, run_script
from sam_lungs.utils.files import check_writable


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Convert NIfTI volumes to NumPy arrays.", allow_abbrev=False
    )
    parser.add_argument(
        "-i",
        "--input_file_path",
        type=Path,
        nargs="+",
        required=True,
        help="one or more .nii or .nii.gz",
    )
    parser.add_argument(
        "-o",
        "--output_file_path",
        type=Path,
        nargs="+",
        required=True,
        help="the .npy or .npz of each, in the same order",
    )
    parser.add_argument(
        "--orientation",
        choices=ORIENTATIONS,
        default="paper",
        help="paper: swap the file's first two axes and move nothing else (default); radiological:"
        " row 0 anterior, column 0 the patient's right, slice 0 inferior",
    )
    parser.add_argument(
        "-n", "--dry_run", action="store_true", help="check the input and say what would be written"
    )
    args = parser.parse_args()

    inputs, outputs = args.input_file_path, args.output_file_path
    if len(inputs) != len(outputs):
        raise InputError(
            f"{len(inputs)} volumes but {len(outputs)} arrays: give as many, in the same order"
        )
    for output in outputs:
        if outputs.count(output) > 1:
            raise InputError(f"{output}: is to hold two volumes; give each its own array")
    status = 0
    for path, output in zip(inputs, outputs, strict=True):
        try:
            print(_convert(path, output, args.orientation, args.dry_run))
        except InputError as error:
            report(error)
            status = 1
    return status


def _convert(path: Path, output: Path, orientation: str, dry_run: bool) -> str:
    """Convert one volume, and return what to say of it."""
    check_numpy_path(output)
    if is_converted(path, output, orientation):
        return f"already converted: {output}"
    volume = read_nifti(path, orientation)
    if dry_run:
        check_writable(output.parent)
    else:
        write_numpy(volume, output)
    verb = "would write" if dry_run else "wrote"
    return f"{verb} {output}: {volume.array.shape} {volume.array.dtype}"


if __name__ == "__main__":
    run_script(main)
