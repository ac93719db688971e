"""All cases of a study, one after the other, with one loaded model."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from sam_lungs.data.case import Case
from sam_lungs.data.readers import identify, read_case
from sam_lungs.data.volume import volume_name
from sam_lungs.segmenters import registry
from sam_lungs.segmenters.base import Segmenter
from sam_lungs.study import layout
from sam_lungs.study.options import Options
from sam_lungs.study.pipeline import map_ahead
from sam_lungs.study.process import case_faults, new_record, process_case, process_slice
from sam_lungs.study.run_record import code_sha256
from sam_lungs.study.setup import load_segmenters, prepare
from sam_lungs.study.unfinished import RunMismatchError, finished_record
from sam_lungs.utils.errors import InputError, report


def run_study(options: Options) -> int:
    """Process the images, each with its masks; skip finished volumes, resume unfinished ones.

    A bad volume is reported on standard error and the others are processed. Returns the exit
    status, 1 if any volume was bad.

    Raises `InputError` as `prepare` does, when the model cannot be loaded, and when results cannot
    be written.
    """
    prepare(options)
    status = 0

    @cache
    def segmenters() -> list[Segmenter]:
        return load_segmenters(options)

    def unfinished() -> Iterator[tuple[Path, Path]]:
        nonlocal status
        for pair in options.pairs:
            try:
                if is_finished(*pair, options):
                    print(f"{volume_name(pair[0])}: finished before, skipped")
                else:
                    yield pair
            except RunMismatchError as error:
                report(error)
                status = 1

    def read(pair: tuple[Path, Path]) -> Case:
        return read_case(*pair, options.window, options.strict_geometry)

    with ThreadPoolExecutor(1) as reader:
        for case in map_ahead(reader, read, unfinished(), ahead=1):
            if faults := case_faults(case, options):
                report(InputError(faults[0]))
                status = 1
                continue
            if case.geometry_warning:
                print(f"warning: {case.geometry_warning}", file=sys.stderr)
            if options.slice is None:
                status |= process_case(case, segmenters(), options)
                continue
            if len(options.pairs) > 1:
                print(f"{case.image_path}:")
            if options.slice in case.prompted(options.empty_slices):
                process_slice(case, segmenters(), options)
            else:
                print(f"{case.image_path}: slice {options.slice} has no lung, so no prompts")
    return status


def is_finished(image_path: Path, masks_path: Path, options: Options) -> bool:
    """Return whether all results of an image are finished; its files are hashed, not parsed.

    A warning is printed when other code made finished ones.

    Raises `InputError` when a results folder holds another run.
    """
    if options.slice is not None or options.overwrite:
        return False
    study_folder = layout.study_folder(options.output_folder, image_path)
    name = volume_name(image_path)
    folders = {each: layout.results_folder(study_folder, each, name) for each in options.protocols}
    if not any(folder.exists() for folder in folders.values()):
        return False
    try:
        inputs = [identify(path) for path in (image_path, masks_path)]
    except InputError:  # reported when the files are read
        return False
    identity = registry.identify(options.model, options.checkpoint)
    # All folders are checked, to report another run before hours are spent.
    records = [
        finished_record(folder, new_record(*inputs, identity, options, options.protocols[each]))
        for each, folder in folders.items()
    ]
    if any(each and each.environment.get("code_sha256") != code_sha256() for each in records):
        print(
            f"warning: {name}: other code made these results; --overwrite computes them again",
            file=sys.stderr,
        )
    return all(records)
