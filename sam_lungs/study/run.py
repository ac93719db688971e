"""All cases of a study, one after the other, with one loaded model at a time."""

import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from sam_lungs.data.case import Case, Finding
from sam_lungs.data.case_files import CaseFiles
from sam_lungs.data.readers import identify
from sam_lungs.segmenters.base import Segmenter
from sam_lungs.study import layout
from sam_lungs.study.options import Options
from sam_lungs.study.pipeline import map_ahead, naming
from sam_lungs.study.process import (
    IN_USE,
    findings,
    new_record,
    process_case,
    process_slice,
    report_in_use,
    volume_prompts,
)
from sam_lungs.study.reading import read_case_for
from sam_lungs.study.run_record import RunRecord, code_sha256
from sam_lungs.study.setup import existing_cases, identify_model, load_segmenters, prepare
from sam_lungs.study.unfinished import RunMismatchError, finished_record
from sam_lungs.utils.errors import InputError, report
from sam_lungs.utils.files import FolderInUseError, locked_folder
from sam_lungs.utils.progress import StudyProgress


class Work(NamedTuple):
    """What is done with each case.

    folder: (study folder, name of a protocol, name of a case) -> folder of the results. The others
    are as in `process`.
    """

    folder: Callable[[Path, str, str], Path]
    findings: Callable[[Case, Options], list[Finding]]
    process_case: Callable[..., int]
    process_slice: Callable[[Case, list[Segmenter], Options], None]


STUDY = Work(layout.results_folder, findings, process_case, process_slice)


def run_study(options: Options, work: Work = STUDY) -> int:
    """Process the cases with each model; skip finished ones, resume unfinished ones.

    A bad case is reported on standard error and the others are processed. Warnings about the files
    of a case are printed there too. Returns 0, or the sum of 1 if any case was bad and `IN_USE` if
    another process still works on one at the end.

    Raises `InputError` as `prepare` does, when a model cannot be loaded, and when results cannot
    be written.
    """
    prepare(options)
    cases, faults = existing_cases(options)
    for fault in faults:
        report(InputError(fault))
    status = int(bool(faults))
    models = options.for_each_model()
    if len(models) > 1 and cases:
        # Missing and wrong weights are reported before hours are spent.
        for one in models:
            identify_model(one)
    faulty: set[Path] = set()
    in_use: list[tuple[CaseFiles, Options]] = []
    progress = StudyProgress(len(models) * len(cases))
    for one in models:
        if len(models) > 1 and options.slice is None:
            print(f"{one.model}:", flush=True)
        left = [files for files in cases if files.path not in faulty]
        progress.skip(len(cases) - len(left))
        done, skipped = _run_model(one, work, left, faulty, progress)
        status |= done
        in_use += [(files, one) for files in skipped]
    progress.close()
    # The other process may have finished them by now.
    with suppress(InputError):
        if all(is_finished(files, one, work) for files, one in in_use):
            return status
    return status | IN_USE


def _run_model(
    options: Options,
    work: Work,
    cases: list[CaseFiles],
    faulty: set[Path],
    progress: StudyProgress,
) -> tuple[int, list[CaseFiles]]:
    """Process cases with the one model of the options.

    faulty: the paths of cases with faults, which were reported, are added. Returns the exit status,
    and the cases on which another process works.
    """
    status, in_use = 0, []

    @cache
    def segmenters() -> list[Segmenter]:
        return load_segmenters(options)

    def read(files: CaseFiles) -> Case:
        return read_case_for(files, options)

    def unfinished() -> Iterator[CaseFiles]:
        nonlocal status
        for files in cases:
            try:
                if is_finished(files, options, work):
                    print(f"{files.name}: finished before, skipped")
                else:
                    yield files
                    continue
            except RunMismatchError as error:
                report(error)
                status = 1
            except FolderInUseError:
                report_in_use(files.name)
                in_use.append(files)
            progress.skip()

    with ThreadPoolExecutor(1) as reader:
        for case in map_ahead(reader, read, unfinished(), ahead=1):
            found = work.findings(case, options)
            if faults := [each for each in found if each.is_fault]:
                # Of a file of prompts, every line that is wrong.
                of_prompts = [each for each in faults if each.name == "prompts"]
                for each in of_prompts or faults[:1]:
                    report(InputError(each.message))
                faulty.add(case.files.path)
                progress.skip()
                status = 1
                continue
            for warning in case.warnings:
                print(f"warning: {warning}", file=sys.stderr)
            if options.slice is None:
                with naming(case.files.path):
                    done = work.process_case(case, segmenters(), options, study=progress)
                status |= done & ~IN_USE
                if done & IN_USE:
                    in_use.append(case.files)
                    progress.skip()
                else:
                    progress.update()
                continue
            if len(options.all_case_files) > 1:
                print(f"{case.files.image_path}:")
            prompted = [each.sources for each in volume_prompts(case, options).values()]
            if any(options.slice in sources for sources in prompted):
                with naming(case.files.path):
                    work.process_slice(case, segmenters(), options)
            else:
                why = "prompts in the file" if options.prompts_file else "lung, so no prompts"
                print(f"{case.files.image_path}: slice {options.slice} has no {why}")
    return status, in_use


def is_finished(files: CaseFiles, options: Options, work: Work = STUDY) -> bool:
    """Return whether all results of a case are finished; its files are hashed, not parsed.

    A warning is printed when other code made finished ones. Where the dataset file gives a finished
    case another patient or subset, its run.json is written again.

    Raises `InputError` when a results folder holds another run.
    """
    if options.slice is not None:
        return False
    study_folder = layout.study_folder(options.output_folder, files)
    protocols = options.protocols_of(files.name)
    folders = {each: work.folder(study_folder, each, files.name) for each in protocols}
    if not any(folder.exists() for folder in folders.values()):
        return False
    try:
        image = identify(files.image_path)
        masks = [identify(path) for path in files.masks_paths]
    except InputError:  # reported when the files are read
        return False
    identity = identify_model(options)
    asked = {
        folder: new_record(files, image, masks, identity, options, protocols[each])
        for each, folder in folders.items()
    }
    # All folders are checked, to report another run before hours are spent.
    there = {
        folder: finished_record(folder, record, options.overwrite)
        for folder, record in asked.items()
    }
    finished = {folder: record for folder, record in there.items() if record}
    if any(each.environment.get("code_sha256") != code_sha256() for each in finished.values()):
        print(
            f"warning: {files.name}: other code made these results; --overwrite computes them"
            " again",
            file=sys.stderr,
        )
    for folder, record in finished.items():
        if options.dataset and (record.patient, record.subset) != (files.patient, files.subset):
            _write_patient(folder, asked[folder])
    return len(finished) == len(folders)


def _write_patient(folder: Path, record: RunRecord) -> None:
    """Write the patient and subset of `record` to the run.json of the same, finished run.

    Raises `InputError` when another process works in the folder, or it cannot be written.
    """
    with locked_folder(folder):
        # Read again, because another process may have replaced the results.
        if there := finished_record(folder, record):
            there.write_patient(folder, record)
