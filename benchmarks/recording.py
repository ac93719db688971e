"""The time that recording takes beside the time of a slice.

    python -m benchmarks.recording

Records 300 slices for ten prompt protocols with the recorder of a study, in a temporary folder in
the current one, so that the file system can be chosen. Prints the time per slice for all protocols,
and its ratio to a slice of 10 ms, as on a fast GPU.
"""

import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from sam_lungs.data.case import Case
from sam_lungs.data.case_files import CaseFiles
from sam_lungs.data.volume import Volume
from sam_lungs.prompts.protocols import PROTOCOLS
from sam_lungs.study.metrics import Overlap
from sam_lungs.study.options import Options as StudyOptions
from sam_lungs.study.pipeline import PromptedSlice, SegmentedSlice
from sam_lungs.study.process import new_record, open_recorder
from sam_lungs.utils.cli import option, parse_options, run_script

SLICE_MS = 10


@dataclass
class Options:
    """Command-line options."""

    slices: int = option("number of slices", 300)
    protocols: int = option("number of prompt protocols", 10)


def main() -> None:
    options = parse_options(
        Options,
        "Measure the time that recording takes.",
        "python -m benchmarks.recording",
        prog="python -m benchmarks.recording",
    )
    voxels = np.zeros((64, 64, options.slices), np.int16)
    files = CaseFiles(Path("image.npy"), (Path("masks.npy"),))
    image, masks = (Volume(array, None, {}) for array in (voxels, np.ones_like(voxels, np.uint8)))
    case = Case(files, image, masks, [{}], None, [])
    study = StudyOptions([files.image_path], list(files.masks_paths), device="cpu")
    with TemporaryDirectory(dir=".") as folder, ExitStack() as stack:
        record = new_record(files, {}, [{}], {}, study, PROTOCOLS["paper"])
        recorders = [
            open_recorder(stack, case, replace(record), Path(folder, str(number)), study)
            for number in range(options.protocols)
        ]
        wall, processor = time.perf_counter(), time.process_time()
        for index in range(options.slices):
            of_slice = voxels[:, :, index]
            count = options.protocols
            prompted = PromptedSlice(index, of_slice, of_slice, None, [], [4] * count)
            overlaps = [Overlap(3000 + number, 4096, 2900) for number in range(count)]
            segmented = SegmentedSlice(prompted, overlaps, [0.9] * count, None, None)
            for number, recorder in enumerate(recorders):
                recorder.add(segmented, number, None, SLICE_MS / 1000)
            recorders[0].dice  # noqa: B018  shown beside the progress
        wall_ms, processor_ms = (
            1000 * (now - start) / options.slices
            for now, start in ((time.perf_counter(), wall), (time.process_time(), processor))
        )
    print(
        f"{wall_ms:.3f} ms a slice, {processor_ms:.3f} ms of the processor:"
        f" {wall_ms / SLICE_MS:.3f} of a slice of {SLICE_MS} ms"
    )


if __name__ == "__main__":
    run_script(main)
