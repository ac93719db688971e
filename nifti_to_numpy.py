#!/usr/bin/env python
r"""Convert a NIfTI volume to a NumPy array (rows, columns, slices), with its geometry as JSON.

python nifti_to_numpy.py \
    --input_file_path datasets/zenodo/COVID-19-CT-Seg_20cases/coronacases_001.nii.gz \
    --output_file_path working_data/image_coronacases_001.npy
"""

import argparse
from pathlib import Path

from sam_lungs.errors import run_script
from sam_lungs.files import check_writable
from sam_lungs.volumes import ORIENTATIONS, check_numpy_path, read_nifti, write_numpy


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Convert a NIfTI volume to a NumPy array.", allow_abbrev=False
    )
    parser.add_argument("-i", "--input_file_path", type=Path, required=True, help=".nii or .nii.gz")
    parser.add_argument("-o", "--output_file_path", type=Path, required=True, help=".npy or .npz")
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

    check_numpy_path(args.output_file_path)
    volume = read_nifti(args.input_file_path, args.orientation)
    if args.dry_run:
        check_writable(args.output_file_path.parent)
    else:
        write_numpy(volume, args.output_file_path)
    verb = "would write" if args.dry_run else "wrote"
    print(f"{verb} {args.output_file_path}: {volume.array.shape} {volume.array.dtype}")


if __name__ == "__main__":
    run_script(main)
