#!/usr/bin/env python
r"""Convert volumes to NumPy arrays (rows, columns, slices), with a JSON sidecar for each.

python nifti_to_numpy.py \
    --input_file_path datasets/zenodo/COVID-19-CT-Seg_20cases/coronacases_001.nii.gz \
    --output_file_path working_data/image_coronacases_001.npy

A volume is a NIfTI, NRRD or MetaImage file, a DICOM file or a folder of DICOM files, a PNG or a
JPEG. It is skipped if its array was already made from the same file with the same options.
"""

from dataclasses import dataclass
from pathlib import Path

from sam_lungs.data.arrays import check_numpy_path, is_converted, write_numpy
from sam_lungs.data.axes import ORIENTATIONS
from sam_lungs.data.readers import READERS, identify, read_volume
from sam_lungs.study.input_options import parse_spacing
from sam_lungs.utils.cli import option, parse_options, run_script
from sam_lungs.utils.errors import InputError, report
from sam_lungs.utils.files import check_writable
from sam_lungs.utils.text import count

EXAMPLE = "python nifti_to_numpy.py -i datasets/zenodo/Lung_Mask/coronacases_001.nii.gz -o mask.npy"


@dataclass(frozen=True)
class Options:
    input_file_path: list[Path] = option(
        f"one or more volumes: {', '.join(READERS)} files, or folders of DICOM files",
        group="files",
        short="-i",
    )
    output_file_path: list[Path] = option(
        "a .npy or .npz file for each, in the same order",
        group="files",
        short="-o",
    )
    orientation: str = option(
        "paper: swap the first two axes of the file, change nothing else; radiological: row 0"
        " anterior, column 0 the patient's right, slice 0 inferior",
        "paper",
        group="conversion",
        choices=ORIENTATIONS,
    )
    series: str | None = option(
        "SeriesInstanceUID of the series to read, for a DICOM folder with several",
        None,
        group="conversion",
    )
    spacing_mm: tuple[float, ...] | None = option(
        "distance between rows, columns and, optionally, slices, for files without a spacing",
        None,
        group="conversion",
        parse=parse_spacing,
        metavar="R,C[,S]",
    )
    dry_run: bool = option(
        "check the input and print what would be written", False, group="conversion", short="-n"
    )


def main() -> int:
    options = parse_options(Options, "Convert volumes to NumPy arrays.", EXAMPLE)
    inputs, outputs = options.input_file_path, options.output_file_path
    if len(inputs) != len(outputs):
        raise InputError(
            f"{count(len(inputs), 'volume')} but {count(len(outputs), 'array')}; give one array for"
            " each volume"
        )
    for output in outputs:
        if outputs.count(output) > 1:
            raise InputError(f"{output}: given for two volumes; name a different file for each")
    status = 0
    for path, output in zip(inputs, outputs, strict=True):
        try:
            print(_convert(path, output, options))
        except InputError as error:
            report(error)
            status = 1
    return status


def _convert(path: Path, output: Path, options: Options) -> str:
    """Convert one volume; return the line to print."""
    check_numpy_path(output)
    reading = {
        name: value
        for name in ("series", "spacing_mm")
        if (value := getattr(options, name)) is not None
    }
    source_sha256 = identify(path)["sha256"]
    if is_converted(source_sha256, output, options.orientation, reading):
        return f"already converted: {output}"
    volume = read_volume(path, orientation=options.orientation, **reading)
    if options.dry_run:
        check_writable(output.parent)
    else:
        write_numpy(volume, output, reading)
    verb = "would write" if options.dry_run else "wrote"
    return f"{verb} {output}: {volume.array.shape} {volume.array.dtype}"


if __name__ == "__main__":
    run_script(main)
