"""Masks that were predicted elsewhere -> the same results as those of a model."""

import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import isnan
from pathlib import Path

import numpy as np
import pandas as pd

from sam_lungs.data.case import Case, Findings, read_case
from sam_lungs.data.case_files import CaseFiles
from sam_lungs.data.plausibility import Finding
from sam_lungs.data.predictions import Predictions, read_predictions
from sam_lungs.study import layout
from sam_lungs.study.measurement_options import METRICS_3D
from sam_lungs.study.metrics import metrics_in, overlap
from sam_lungs.study.pipeline import PromptedSlice, SegmentedSlice
from sam_lungs.study.process import (
    IN_USE,
    about_case,
    measurement_findings,
    new_record,
    open_recorder,
    report_in_use,
)
from sam_lungs.study.results import RAW_DATA_COLUMNS, read_empty_slices, read_raw_data
from sam_lungs.study.run_record import RunRecord
from sam_lungs.study.score_options import ScoreOptions
from sam_lungs.study.setup import check_names, existing_cases
from sam_lungs.study.unfinished import RunMismatchError
from sam_lungs.utils.errors import InputError, report
from sam_lungs.utils.files import FolderInUseError
from sam_lungs.utils.text import count

# The identity of masks that no run here made.
UNKNOWN_SOURCE = {
    "family": "masks",
    "weights": {},
    "provenance": "by name",
    "licence": None,
    "size_bytes": None,
    "preprocessing": None,
    "mask_choice": None,
    "packages": {},
    "prompt_kinds": [],
    "note": "masks made elsewhere; how is not recorded",
}


@dataclass(frozen=True, eq=False)
class Source:
    """The run here that made predicted masks.

    scores, interactions: by slice, as in its `raw_data.csv`. prompted_as: of the slices without
    objects that it segmented; None if it left them out. cells: with prompts of a file those of the
    slices that have some, see `Recorder.finish`; empty with others.
    """

    record: RunRecord
    scores: dict[int, float]
    interactions: dict[int, int]
    segmented: set[int]
    prompted_as: dict[int, int] | None
    cells: dict[int, dict[str, object]]


def score_study(options: ScoreOptions) -> int:
    """Score the predicted masks of all cases; skip finished ones.

    A bad case is reported on standard error and the others are scored. A case without predictions
    is named there, and its predicted masks are empty. Returns 0, or the sum of 1 if any case was
    bad and `IN_USE` if another process still works on one at the end.

    Raises `InputError` when no predictions are found, and when results cannot be written.
    """
    check_names(options)
    paths = options.prediction_paths()
    cases, faults = existing_cases(options)
    for fault in faults:
        report(InputError(fault))
    status = int(bool(faults))
    if options.objects == "apart":
        for name in {name for files in cases for name in files.reading.objects or ()}:
            if "/" in name or name.startswith("."):
                raise InputError(f"object {name}: results cannot be named after it; rename it")
    if missing := [files.name for files in cases if not paths[files.path]]:
        shown = ", ".join(missing[:10]) + (", ..." if len(missing) > 10 else "")
        print(
            f"warning: no predictions for {len(missing)} of {count(len(cases), 'case')}, which"
            f" count as empty: {shown}",
            file=sys.stderr,
        )
    in_use = []
    for files in cases:
        done = _score_files(files, paths[files.path], options)
        status |= done & ~IN_USE
        if done & IN_USE:
            in_use.append(files)
    # The other process may have finished them by now.
    for files in in_use:
        status |= _score_files(files, paths[files.path], options)
    return status


def results_folders(options: ScoreOptions) -> list[list[Path]]:
    """Return the folders that hold a folder per case, one for each object that is scored apart.

    There is a list for each study folder.
    """
    folders: dict[Path, list[Path]] = {}
    for files in options.case_files:
        folder = layout.study_folder(options.output_folder, files) / options.source_name
        found = [folder]
        if options.objects == "apart":
            # Beside them there may be results of all objects together, and figures.
            in_it = sorted(folder.glob("*"))
            found = [each for each in in_it if (each / files.name / layout.RUN_NAME).exists()]
        known = folders.setdefault(folder, [])
        known += [each for each in found if each not in known]
    return list(folders.values())


def _score_files(files: CaseFiles, paths: list[Path], options: ScoreOptions) -> int:
    """Score the predictions of a case; return the status."""
    case = read_case(files)
    found, predictions, source = list(case.findings), None, None
    findings = Findings(())
    if not case.faults:
        apart = options.objects == "apart"
        predictions = read_predictions(
            paths, case, options.prediction_objects, options.align_predictions, apart
        )
        with findings.collecting("source"):
            source = _source_of(paths, predictions)
        found += predictions.findings + findings.found + measurement_findings(case, options)
        if source:
            found += _source_findings(source, case, paths[0], options)
    if faults := [each.message for each in found if each.is_fault]:
        report(InputError(faults[0]))
        return 1
    for each in found:
        print(f"warning: {each.message}", file=sys.stderr)
    case, status = replace(case, findings=found), 0
    objects = case.objects if options.objects == "apart" else {"": 0}
    for name, value in objects.items():
        one, predicted = case, predictions.labels != 0
        if name:
            of_object = np.where(case.masks.array == value, case.masks.array, 0)
            one = replace(case, masks=replace(case.masks, array=of_object))
            predicted = predictions.labels == value
        if not one.lung_slices:
            print(f"{files.name}: has no {name}", file=sys.stderr)
        elif options.dry_run:
            print(f"{files.name}: {_counts(one, predicted)}")
        else:
            status |= _score(one, name, predicted, predictions, source, options)
    return status


def _counts(case: Case, predicted: np.ndarray) -> str:
    slices = np.count_nonzero(predicted.any(axis=(0, 1)))
    return (
        f"{count(case.masks.array.shape[2], 'slice')}, {len(case.lung_slices)} with reference"
        f" masks, {slices} with predicted masks"
    )


def _score(
    case: Case,
    name: str,
    predicted: np.ndarray,
    predictions: Predictions,
    source: Source | None,
    options: ScoreOptions,
) -> int:
    """Write the results of one object of a case, or of all; return the status.

    predicted: (rows, columns, slices) bool.
    """
    of_all = layout.study_folder(options.output_folder, case.files) / options.source_name
    folder = layout.results_folder(of_all, name, case.name)
    # Neither the predicted masks nor the tables of another run may be replaced.
    with_masks = {Path(each["file"]).resolve().parent for each in predictions.identities}
    if folder.resolve() in with_masks or (of_all / layout.RUN_NAME).exists():
        report(InputError(f"{of_all}: holds results of another run; give another --name"))
        return 1
    with ExitStack() as stack:
        try:
            record = _new_record(case, name, predictions, source, options)
            recorder = open_recorder(stack, case, record, folder, options)
        except RunMismatchError as error:
            report(error)
            return 1
        except FolderInUseError:
            report_in_use(case.name, [name] if name else ())
            return IN_USE
        if recorder is None:
            print(f"{case.name}: finished before, skipped")
            if options.dataset:
                RunRecord.read(folder).write_patient(folder, record)
            return 0
        with_empty_slices = source is None or source.prompted_as is not None
        slices = range(case.image.array.shape[2]) if with_empty_slices else case.lung_slices
        cells = source.cells if source else {}
        if cells:
            with_empty_slices, slices = False, sorted(cells)
        for index in slices:
            if index not in recorder.done:
                started = time.perf_counter()
                segmented = _segmented(case, predicted, index, source)
                prompted_as = ((source and source.prompted_as) or {}).get(index)
                recorder.add(segmented, 0, prompted_as, time.perf_counter() - started)
        recorder.finish(with_empty_slices, cells)
    # NaN where the prompts of a file are in no slice with objects.
    dice = "no slice with objects" if isnan(recorder.dice) else f"mean Dice {recorder.dice:.4f}"
    print(f"{folder}: {dice}")
    return 0


def _segmented(
    case: Case, predicted: np.ndarray, index: int, source: Source | None
) -> SegmentedSlice:
    """Return a slice as if a model had segmented it."""
    masks, mask = case.masks.array[:, :, index], predicted[:, :, index]
    score = interactions = None
    if source:
        score, interactions = source.scores.get(index), source.interactions.get(index)
    prompted = PromptedSlice(index, mask, masks, None, [], interactions=[interactions])
    return SegmentedSlice(prompted, [overlap(mask, masks != 0)], [score], mask[None], None)


def _new_record(
    case: Case,
    name: str,
    predictions: Predictions,
    source: Source | None,
    options: ScoreOptions,
) -> RunRecord:
    """Return the record of scored masks; of a model's run here, what made them is taken over."""
    image = case.image.identity if case.files.image_path else {}
    identity = {"model": options.source_name} | UNKNOWN_SOURCE
    record = new_record(case.files, image, case.masks_identities, identity, options, None)
    record = replace(record, predictions=predictions.identities, **about_case(case))
    if name:
        record = replace(record, options=record.options | {"object": name})
    if source:
        made_by = source.record
        record = replace(
            record,
            segmenter=made_by.segmenter,
            protocol=made_by.protocol,
            options=made_by.options
            | record.options
            | {"objects": made_by.options.get("objects", "together")},
        )
    return record


def _source_of(paths: list[Path], predictions: Predictions) -> Source | None:
    """Return the run that wrote the predictions, if it is one of `process_image.py`.

    Its run.json says so by the SHA-256 of the file. Raises `InputError` when its tables were
    changed.
    """
    if [path.name for path in paths] != [layout.MASKS_NAME] or not predictions.identities:
        return None
    folder = paths[0].resolve().parent
    record = RunRecord.read(folder)
    sha256 = predictions.identities[0]["sha256"]
    if not record or record.files.get(layout.MASKS_NAME) != sha256:
        return None
    if changed := record.changed_file(folder):
        raise InputError(f"{changed}: has changed since its run; process the image again")
    table = read_raw_data(folder / layout.RAW_DATA_NAME).set_index("slice")
    prompted_as = None
    if (folder / layout.EMPTY_SLICES_NAME).exists():
        empty = read_empty_slices(folder).set_index("slice")["prompted_as"]
        prompted_as = {index: None if pd.isna(one) else int(one) for index, one in empty.items()}
    predicted = predictions.labels
    areas = np.count_nonzero(predicted, axis=(0, 1)) if predicted is not None else []
    known = table["predicted_pixels"].dropna()
    if predicted is not None and not (
        len(areas) == len(table) and (areas[known.index] == known).all()
    ):
        raise InputError(
            f"{paths[0]}: its run had other slices, or their order was another; give the image"
            " of its run with -i"
        )
    segmented = set(table.index[table["predicted_pixels"].notna()]) | set(prompted_as or ())
    interactions = table["interactions"].dropna().astype(int).to_dict()
    scores, cells = table["score"].dropna().to_dict(), {}
    if "prompts_file" in record.protocol:
        known = [*RAW_DATA_COLUMNS, *metrics_in(table)]
        names = [name for name in table if name == "interactions" or name not in known]
        cells = table.loc[list(interactions), names].to_dict("index")
    return Source(record, scores, interactions, segmented, prompted_as, cells)


def _source_findings(
    source: Source, case: Case, path: Path, options: ScoreOptions
) -> list[Finding]:
    """Return the faults of scoring a run that did not segment all slices."""
    found = []
    remedy = "run process_image.py with --empty_slices nearest"
    if source.cells:
        remedy = "write prompts for it, and run process_image.py again"
    left_out = [index for index in case.lung_slices if index not in source.segmented]
    if left_out:
        message = (
            f"{path}: its run did not segment slice {left_out[0]}, which has reference masks;"
            f" {remedy}"
        )
        found.append(Finding("slices", message, is_fault=True))
    is_partial = source.prompted_as is None and not source.cells
    if options.measures(*METRICS_3D) and is_partial:
        message = (
            f"{path}: its run left out the slices without objects, so there are no metrics in 3-D;"
            " run process_image.py with --empty_slices nearest"
        )
        found.append(Finding("slices", message, is_fault=True))
    return found
