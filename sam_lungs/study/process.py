"""One case -> its results folders. A local run, a dry run and a cluster job all call this."""

import json
import sys
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields, replace
from pathlib import Path

from sam_lungs.data.case import Case, Finding
from sam_lungs.data.case_files import CaseFiles
from sam_lungs.data.names import NUMPY_SUFFIXES
from sam_lungs.data.windowing import slice_to_rgb
from sam_lungs.prompts.protocols import PromptProtocol
from sam_lungs.prompts.rules import make_united_prompts
from sam_lungs.segmenters.base import Prediction, Segmenter
from sam_lungs.segmenters.embeddings import EmbeddingStore
from sam_lungs.segmenters.presets import folder_name
from sam_lungs.study import layout
from sam_lungs.study.options import Options
from sam_lungs.study.pictures import save_prediction
from sam_lungs.study.pipeline import Pipeline, PromptedSlice, SegmentedSlice
from sam_lungs.study.recorder import Recorder, measure_more
from sam_lungs.study.results import write_prompts
from sam_lungs.study.run_record import NUMBERS_VERSION, RunRecord, environment
from sam_lungs.study.unfinished import RunMismatchError, UnfinishedRun, finished_record
from sam_lungs.utils.errors import InputError, report
from sam_lungs.utils.files import FolderInUseError, check_writable, locked_folder
from sam_lungs.utils.progress import Progress

# Options that `image`, `masks` and `reading` of a run record hold.
IN_READING = (
    *("image_file_path", "masks_file_path"),
    *("window", "align", "labels", "spacing_mm", "series"),
)


def process_case(case: Case, segmenters: Sequence[Segmenter], options: Options) -> int:
    """Segment the missing slices of a case, and write its results.

    case: without faults. segmenters: the same model, one per device.

    A results folder that holds another run, or in which another process works, is reported on
    standard error, and the other protocols are processed. Returns the exit status: 0, or 1 after a
    report.

    Raises `InputError` when a file cannot be written, or there is too little memory.
    """
    status = 0
    recorders: dict[str, Recorder] = {}
    with ExitStack() as stack:
        for name, protocol in options.protocols.items():
            try:
                if recorder := _open(stack, case, segmenters[0], options, name, protocol):
                    recorders[name] = recorder
            except (RunMismatchError, FolderInUseError) as error:
                report(error)
                status = 1
        if recorders:
            _record(case, segmenters, options, recorders)
        for recorder in recorders.values():
            recorder.finish()
    return status


def process_slice(case: Case, segmenters: Sequence[Segmenter], options: Options) -> None:
    """Segment the slice of a case that the options name, and print its metrics.

    Raises `InputError` when a picture cannot be written, or there is too little memory.
    """
    names = list(options.protocols)
    prompted_as = {options.slice: case.prompted(options.empty_slices)[options.slice]}
    for segmented in _segment(case, segmenters, options, prompted_as, names):
        for number, name in enumerate(names):
            if options.debug:
                study_folder = layout.study_folder(options.output_folder, case.files)
                folder = layout.slice_debug_folder(study_folder, name, case.name)
                _draw(case, segmented, number, folder, options.draw)
            if name:
                print(f"{name}:")
            overlap = segmented.overlaps[number]
            if not overlap.reference:
                print(f"no lung, but the predicted mask has {overlap.predicted} pixels")
                continue
            print(f"Jaccard index: {overlap.jaccard:.4f}")
            print(f"Dice score: {overlap.dice:.4f}")
            for metric, value in measure_more(segmented, number, case.image, options).items():
                print(f"{metric}: {value:.4f}")


def _open(
    stack: ExitStack,
    case: Case,
    segmenter: Segmenter,
    options: Options,
    name: str,
    protocol: PromptProtocol,
) -> Recorder | None:
    """Lock a results folder and return its recorder; None when the run is finished."""
    study_folder = layout.study_folder(options.output_folder, case.files)
    folder = layout.results_folder(study_folder, name, case.name)
    stack.enter_context(locked_folder(folder))
    identities = case.image.identity, case.masks_identities
    record = replace(
        new_record(case.files, *identities, segmenter.identity, options, protocol),
        window_hu=case.window and list(case.window.range_hu),
        findings=[
            {"name": each.name, "message": each.message, "is_allowed": each.is_allowed}
            for each in case.findings
        ],
    )
    if finished_record(folder, record, options.overwrite):
        return None
    log = stack.enter_context(UnfinishedRun(folder, record))
    if log.discarded_slices:
        print(
            f"{folder}: {log.discarded_slices} slices were made on another device, or with other"
            " packages, threads or code; starting again at the first slice",
            file=sys.stderr,
        )
    return Recorder(folder, case.image, options, log)


def new_record(
    files: CaseFiles,
    image: dict,
    masks: list[dict],
    segmenter: dict,
    options: Options,
    protocol: PromptProtocol,
) -> RunRecord:
    """Return the record of a new run.

    image, masks: see `Volume.identity`. segmenter: see `Segmenter.identity`.
    """
    recorded = {True: {}, False: {}}
    for each in fields(options):
        if each.name not in IN_READING:
            recorded[each.metadata["decides"]][each.name] = getattr(options, each.name)
    # Baselines have no GPU code.
    device = "cpu" if segmenter.get("family") == "baseline" else options.device
    content = {
        "numbers_version": NUMBERS_VERSION,
        "image": image,
        "masks": masks,
        "reading": {
            name: value for name, value in asdict(files.reading).items() if name != "allow"
        },
        "patient": files.patient,
        "subset": files.subset,
        "segmenter": segmenter,
        "options": recorded[True],
        "other_options": recorded[False],
        "protocol": asdict(protocol),
        "environment": environment(device),
        "command": sys.argv,
    }
    # Converted to JSON and back, so that it equals a record that is read from run.json.
    return RunRecord(**json.loads(json.dumps(content, default=str)))


def _record(
    case: Case, segmenters: Sequence[Segmenter], options: Options, recorders: dict[str, Recorder]
) -> None:
    """Segment and record the slices that are missing in any recorder."""
    prompted_as = case.prompted(options.empty_slices)
    done = set.intersection(*(recorder.done for recorder in recorders.values()))
    left = {index: shown for index, shown in prompted_as.items() if index not in done}
    if not left:
        return
    first = next(iter(recorders.values()))
    segmented_slices = _segment(case, segmenters, options, left, list(recorders))
    clock = time.perf_counter()
    with Progress(case.name, len(prompted_as), len(prompted_as) - len(left)) as progress:
        for segmented in segmented_slices:
            before, clock = clock, time.perf_counter()
            index = segmented.prompted.index
            for number, recorder in enumerate(recorders.values()):
                if index in recorder.done:
                    continue
                if options.debug:
                    _draw(case, segmented, number, recorder.debug_folder, options.draw)
                recorder.add(segmented, number, prompted_as[index], clock - before)
            progress.update(remark=f"mean Dice {first.dice:.4f}")


def _segment(
    case: Case,
    segmenters: Sequence[Segmenter],
    options: Options,
    prompted_as: dict[int, int],
    names: list[str],
) -> Iterator[SegmentedSlice]:
    """Yield slices segmented with prompt protocols.

    prompted_as: the slices, and for each the slice that its prompts come from.
    """
    protocols = [options.protocols[name] for name in names]

    def read(index: int) -> PromptedSlice:
        voxels, masks = (volume.array[:, :, index] for volume in (case.image, case.masks))
        shown = case.masks.array[:, :, prompted_as[index]]
        prompts = [make_united_prompts(shown, protocol, options.objects) for protocol in protocols]
        window_hu = case.window and case.window.range_hu
        image_rgb = slice_to_rgb(voxels, case.window)
        return PromptedSlice(index, voxels, masks, image_rgb, prompts, window_hu)

    keep_masks = options.debug or options.save_masks or options.needs_spacing
    pipeline = Pipeline(segmenters, options.batch_size, keep_masks, options.one_click)
    return pipeline.run(read, prompted_as, _embedding_store(case, segmenters[0], options))


def _embedding_store(case: Case, segmenter: Segmenter, options: Options) -> EmbeddingStore | None:
    if options.embeddings_folder is None or segmenter.identity["family"] == "baseline":
        return None
    return EmbeddingStore(
        options.embeddings_folder / folder_name(segmenter.identity["model"]) / case.name,
        segmenter.identity,
        case.window and list(case.window.range_hu),
        options.precision,
        options.embeddings_precision,
    )


def _draw(
    case: Case, segmented: SegmentedSlice, number: int, folder: Path, layers: Collection[str]
) -> None:
    """Write the picture and the prompts of a slice."""
    prompted = segmented.prompted
    prompts = prompted.prompts[number]
    prediction = Prediction(segmented.masks[number], segmented.predicted_ious[number])
    save_prediction(
        folder / layout.picture_name(prompted.index),
        prompted.image_rgb,
        prompted.masks,
        prompts,
        prediction,
        case.image.geometry,
        layers,
    )
    masks_paths = [str(path) for path in case.files.masks_paths]
    of_slice = {
        "image": str(case.files.image_path),
        "masks": masks_paths if len(masks_paths) > 1 else masks_paths[0],
        "slice": prompted.index,
    }
    write_prompts(folder / layout.prompts_name(prompted.index), of_slice, prompts)


def findings(case: Case, options: Options) -> list[Finding]:
    """Return every finding about a case: about its files, and about the options for it."""
    found, path = list(case.findings), case.files.image_path

    def add_fault(name: str, message: str) -> None:
        found.append(Finding(name, message, is_fault=True))

    if case.image:
        slices = case.image.array.shape[2]
        if options.slice is not None and not 0 <= options.slice < slices:
            add_fault("slice", f"{path}: no slice {options.slice}; give 0 to {slices - 1}")
        needs = "--save_masks" if options.save_masks else options.needs_spacing and "--metrics"
        if needs and case.image.geometry is None:
            convert = "convert the original volume with nifti_to_numpy.py, "
            add_fault(
                "spacing",
                f"{path}: the size of its voxels is unknown; give it with --spacing_mm,"
                f" {convert if path.suffix in NUMPY_SUFFIXES else ''}or leave out {needs}",
            )
        rows, columns = case.image.array.shape[:2]
        for protocol in options.protocols.values():
            points_rc = [] if isinstance(protocol.negative, str) else protocol.negative
            outside = [
                f"{row},{column}" for row, column in points_rc if row >= rows or column >= columns
            ]
            if outside:
                add_fault(
                    "negative",
                    f"{path}: no pixel {' '.join(outside)} in a slice of {rows} x {columns}; give"
                    f" --negative 0,0 to {rows - 1},{columns - 1}",
                )
    for folder in written_folders(case, options):
        try:
            check_writable(folder)
        except InputError as error:
            add_fault("folder", str(error))
    return found


def written_folders(case: Case, options: Options) -> list[Path]:
    """Return the folders that processing a case writes to."""
    folders = [options.embeddings_folder] if options.embeddings_folder else []
    study_folder = layout.study_folder(options.output_folder, case.files)
    for name in [name for one in options.for_each_model() for name in one.protocols]:
        if options.slice is None:
            folders.append(layout.results_folder(study_folder, name, case.name))
        elif options.debug:
            folders.append(layout.slice_debug_folder(study_folder, name, case.name))
    return folders
