"""One case -> its results folders. A local run, a dry run and a cluster job all call this."""

import json
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, fields, replace
from math import isnan
from pathlib import Path

import numpy as np

from sam_lungs.data.case import Case, Finding
from sam_lungs.data.case_files import CaseFiles
from sam_lungs.data.names import NUMPY_SUFFIXES
from sam_lungs.data.windowing import slice_to_rgb
from sam_lungs.prompts.protocols import PromptProtocol
from sam_lungs.prompts.volume import VolumePrompts
from sam_lungs.segmenters.base import Prediction, Segmenter
from sam_lungs.segmenters.embeddings import EmbeddingStore
from sam_lungs.segmenters.presets import folder_name
from sam_lungs.study import layout
from sam_lungs.study.measure import measure_slice
from sam_lungs.study.measurement_options import METRICS_3D
from sam_lungs.study.options import Options
from sam_lungs.study.pictures import save_prediction
from sam_lungs.study.pipeline import Pipeline, PromptedSlice, SegmentedSlice
from sam_lungs.study.recorder import Recorder
from sam_lungs.study.replay import Replay, ReplayedPrompts
from sam_lungs.study.results import write_prompts
from sam_lungs.study.run_record import NUMBERS_VERSION, RunRecord, environment
from sam_lungs.study.score_options import ScoreOptions
from sam_lungs.study.unfinished import RunMismatchError, UnfinishedRun, finished_record
from sam_lungs.utils.errors import InputError, report
from sam_lungs.utils.files import FolderInUseError, check_writable, locked_folder
from sam_lungs.utils.progress import Progress, StudyProgress
from sam_lungs.utils.text import count

# Options that `image`, `masks`, `predictions` and `reading` of a run record hold. Those that name
# all volumes of a study would make the record of each of them long.
ELSEWHERE = (
    *("image_file_path", "masks_file_path", "predictions", "cases"),
    *("window", "align", "labels", "spacing_mm", "series"),
)
# Part of the status of a case or a study: another process works on results. The exit status of a
# script leaves it out.
IN_USE = 2


def process_case(
    case: Case,
    segmenters: Sequence[Segmenter],
    options: Options,
    prompts: dict[str, VolumePrompts | ReplayedPrompts] | None = None,
    study: StudyProgress | None = None,
) -> int:
    """Segment the missing slices of a case, and write its results.

    case: without faults. segmenters: the same model, one per device. prompts: by default all, see
    `volume_prompts`. study: of which it is a volume.

    A results folder that holds another run is reported on standard error, and the other protocols
    are processed. So is one in which another process works. Returns 0, or the sum of 1 after an
    error and `IN_USE` where another process works.

    Raises `InputError` when a file cannot be written, or there is too little memory.
    """
    prompts = prompts or volume_prompts(case, options)
    study_folder = layout.study_folder(options.output_folder, case.files)
    folders = {name: layout.results_folder(study_folder, name, case.name) for name in prompts}
    with ExitStack() as stack:
        logs, status = open_logs(stack, case, segmenters[0], options, folders)
        recorders = {
            name: Recorder(folders[name], case, options, log) for name, log in logs.items()
        }
        if recorders:
            _record(case, segmenters, options, recorders, prompts, study)
        for name, recorder in recorders.items():
            cells = prompts[name].cells if options.prompts_file else None
            recorder.finish(options.empty_slices == "nearest", cells)
    return status


def process_slice(case: Case, segmenters: Sequence[Segmenter], options: Options) -> None:
    """Segment the slice of a case that the options name, and print its metrics.

    Raises `InputError` when a picture cannot be written, or there is too little memory.
    """
    prompts = volume_prompts(case, options)
    for segmented in _segment(case, segmenters, options, [options.slice], list(prompts.values())):
        for number, (name, of_volume) in enumerate(prompts.items()):
            if name:
                print(f"{name}:")
            if options.slice not in of_volume.sources:
                print("no prompts" if options.prompts_file else "no lung, so no prompts")
                continue
            if options.debug:
                study_folder = layout.study_folder(options.output_folder, case.files)
                folder = layout.slice_debug_folder(study_folder, name, case.name)
                _draw(case, segmented, number, folder, options.draw)
            overlap = segmented.overlaps[number]
            if case.masks is None:
                print(f"the predicted mask has {overlap.predicted} pixels")
                continue
            if not overlap.reference:
                print(f"no lung, but the predicted mask has {overlap.predicted} pixels")
                continue
            print(f"Jaccard index: {overlap.jaccard:.4f}")
            print(f"Dice score: {overlap.dice:.4f}")
            for metric, value in measure_slice(segmented, number, case.image, options).items():
                print(f"{metric}: {value:.4f}")


def volume_prompts(case: Case, options: Options) -> dict[str, VolumePrompts | ReplayedPrompts]:
    """Return the prompts of a case without faults, by the name of the protocol."""
    protocols = options.protocols_of(case.name)
    if options.prompts_file:
        return {name: ReplayedPrompts(each.cases[case.name]) for name, each in protocols.items()}
    return {
        name: VolumePrompts(
            case.masks.array,
            case.slices_of_labels,
            protocol,
            options.objects,
            options.empty_slices,
        )
        for name, protocol in protocols.items()
    }


def open_logs(
    stack: ExitStack,
    case: Case,
    segmenter: Segmenter,
    options: Options,
    folders: Mapping[str, Path],
) -> tuple[dict[str, UnfinishedRun], int]:
    """Lock the results folders of protocols; return the logs of the unfinished ones, and a status.

    folders: by the name of the protocol. Reports and the status are as for `process_case`.

    Raises `InputError` when a folder cannot be written.
    """
    status, in_use = 0, []
    logs: dict[str, UnfinishedRun] = {}
    identities = case.image.identity, case.masks_identities
    for name, folder in folders.items():
        protocol = options.protocols[name]
        record = new_record(case.files, *identities, segmenter.identity, options, protocol)
        record = replace(record, **about_case(case))
        try:
            if log := open_log(stack, record, folder, options.overwrite):
                logs[name] = log
        except RunMismatchError as error:
            report(error)
            status = 1
        except FolderInUseError:
            in_use.append(name)
    if in_use:
        report_in_use(case.name, in_use if len(in_use) < len(folders) else ())
        status |= IN_USE
    return logs, status


def open_recorder(
    stack: ExitStack,
    case: Case,
    record: RunRecord,
    folder: Path,
    options: Options | ScoreOptions,
) -> Recorder | None:
    """Lock a results folder and return the recorder of a run; None when the run is finished.

    Raises `RunMismatchError` when the folder holds another run, `FolderInUseError` when another
    process works in it, and `InputError` when it cannot be written.
    """
    log = open_log(stack, record, folder, options.overwrite)
    return log and Recorder(folder, case, options, log)


def report_in_use(case: str, protocols: Collection[str] = ()) -> None:
    """Say that results of a case are left to another process: all, or those of some protocols."""
    which = f" ({', '.join(protocols)})" if protocols else ""
    print(f"{case}{which}: in progress in another process, skipped", file=sys.stderr)


def is_complete(status: int) -> bool:
    """Return whether tables and a report of the whole study can be made after a run.

    status: as `process_case` returns it. After `IN_USE` alone it prints why there is no report.
    """
    if status == IN_USE:
        print(
            "no report, because another process works on some volumes; run the same command again"
            " when it has ended",
            file=sys.stderr,
        )
    return not status


def open_log(
    stack: ExitStack, record: RunRecord, folder: Path, overwrite: bool
) -> UnfinishedRun | None:
    """Lock a results folder and return the log of a run; None when the run is finished.

    Raises as `open_recorder` does.
    """
    stack.enter_context(locked_folder(folder))
    if finished_record(folder, record, overwrite):
        return None
    log = stack.enter_context(UnfinishedRun(folder, record))
    if log.discarded_slices:
        print(
            f"{folder}: starting again at the first slice;"
            f" {count(log.discarded_slices, 'finished slice')} of another device, other packages,"
            " threads or code",
            file=sys.stderr,
        )
    return log


def about_case(case: Case) -> dict[str, object]:
    """Return the fields of a run record that are known when the files of a case are read."""
    return {
        "window_hu": case.window and list(case.window.range_hu),
        "findings": [
            {"name": each.name, "message": each.message, "is_allowed": each.is_allowed}
            for each in case.findings
        ],
    }


def new_record(
    files: CaseFiles,
    image: dict,
    masks: list[dict],
    segmenter: dict,
    options: Options | ScoreOptions,
    protocol: PromptProtocol | Replay | None,
) -> RunRecord:
    """Return the record of a new run.

    image, masks: see `Volume.identity`; image is empty without one. segmenter: see
    `Segmenter.identity`. protocol: None for masks that were made elsewhere.
    """
    recorded = {True: {}, False: {}}
    for each in fields(options):
        if each.name not in ELSEWHERE:
            recorded[each.metadata["decides"]][each.name] = getattr(options, each.name)
    # Baselines have no GPU code, and scores of masks need no model.
    needs_model = segmenter.get("family") not in ("baseline", "masks")
    if isinstance(protocol, Replay):
        of_prompts = protocol.recorded(files.name)
    else:
        of_prompts = asdict(protocol) if protocol else {}
    content = {
        "numbers_version": NUMBERS_VERSION,
        "image": image,
        "masks": masks,
        "reading": {
            name: value for name, value in asdict(files.reading).items() if name != "allow"
        },
        "patient": files.patient,
        "subset": files.subset,
        "dataset": options.dataset_identity,
        "segmenter": segmenter,
        "options": recorded[True],
        "other_options": recorded[False],
        "protocol": of_prompts,
        "environment": environment(options.device if needs_model else "cpu"),
        "command": options.command_of(files),
    }
    # Converted to JSON and back, so that it equals a record that is read from run.json.
    return RunRecord(**json.loads(json.dumps(content, default=str)))


def _record(
    case: Case,
    segmenters: Sequence[Segmenter],
    options: Options,
    recorders: dict[str, Recorder],
    of_all: dict[str, VolumePrompts | ReplayedPrompts],
    study: StudyProgress | None,
) -> None:
    """Segment and record the slices that are missing in any recorder.

    of_all: see `volume_prompts`.
    """
    prompts = {name: of_all[name] for name in recorders}
    prompted = set().union(*(each.sources for each in prompts.values()))
    left = sorted(
        set().union(*(prompts[name].sources.keys() - recorders[name].done for name in recorders))
    )
    if not left:
        return
    first = next(iter(recorders.values()))
    segmented_slices = _segment(case, segmenters, options, left, list(prompts.values()))
    clock = time.perf_counter()
    with Progress(case.name, len(prompted), len(prompted) - len(left), study=study) as progress:
        for segmented in segmented_slices:
            before, clock = clock, time.perf_counter()
            index = segmented.prompted.index
            for number, (name, recorder) in enumerate(recorders.items()):
                sources = prompts[name].sources
                if index in recorder.done or index not in sources:
                    continue
                if options.debug:
                    _draw(case, segmented, number, recorder.debug_folder, options.draw)
                prompted_as = sources[index] if sources[index] != index else None
                recorder.add(segmented, number, prompted_as, clock - before)
            # NaN without masks, and as long as no slice with objects is recorded.
            progress.update(remark="" if isnan(first.dice) else f"mean Dice {first.dice:.4f}")


def _segment(
    case: Case,
    segmenters: Sequence[Segmenter],
    options: Options,
    indices: Sequence[int],
    prompts: list[VolumePrompts | ReplayedPrompts],
) -> Iterator[SegmentedSlice]:
    """Yield slices segmented with the prompts of several protocols.

    indices: of slices that at least one protocol prompts.
    """

    def read(index: int) -> PromptedSlice:
        voxels = case.image.array[:, :, index]
        masks = case.masks.array[:, :, index] if case.masks else np.zeros(voxels.shape, np.uint8)
        found = [each.at(index) for each in prompts]
        # All slices of a batch have the same number of protocols. A protocol without prompts in
        # this slice gets those of another one, and its prediction is not used.
        other = next(each.united for each in found if each.united)
        return PromptedSlice(
            index,
            voxels,
            masks,
            slice_to_rgb(voxels, case.window),
            [each.united or other for each in found],
            [each.interactions for each in found],
            case.window and case.window.range_hu,
        )

    keep_masks = options.debug or options.save_masks or options.measures_masks
    # The prompts of a file get the masks of `decode_slice`, as those of an exploration do.
    by_slice = options.prompts_file is not None
    pipeline = Pipeline(segmenters, options.batch_size, keep_masks, options.one_click, by_slice)
    return pipeline.run(read, indices, embedding_store(case, segmenters[0], options))


def embedding_store(case: Case, segmenter: Segmenter, options: Options) -> EmbeddingStore | None:
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
    of_slice = {"image": str(case.files.image_path)}
    if masks_paths:
        of_slice["masks"] = masks_paths if len(masks_paths) > 1 else masks_paths[0]
    of_slice["slice"] = prompted.index
    write_prompts(folder / layout.prompts_name(prompted.index), of_slice, prompts)


def findings(case: Case, options: Options) -> list[Finding]:
    """Return every finding about a case: about its files, and about the options for it."""
    found, path = list(case.findings), case.files.path

    def add_fault(name: str, message: str) -> None:
        found.append(Finding(name, message, is_fault=True))

    if case.image:
        found += measurement_findings(case, options)
        slices = case.image.array.shape[2]
        if options.slice is not None and not 0 <= options.slice < slices:
            add_fault("slice", f"{path}: no slice {options.slice}; give 0 to {slices - 1}")
        rows, columns = case.image.array.shape[:2]
        for protocol in options.protocols.values():
            if isinstance(protocol, Replay):
                for line in protocol.faults(case, in_3d=options.measures(*METRICS_3D)):
                    add_fault("prompts", line)
                continue
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
    if not options.protocols_of(case.name):
        message = f"{options.prompts_file}: has no prompts for {case.name}"
        if options.replays.unknown:
            message += f", but for {options.replays.unknown[0]}"
        add_fault(
            "prompts",
            f"{message}; write its name, or in YAML its path after image:, or leave out {path}",
        )
    for folder in written_folders(case, options):
        try:
            check_writable(folder)
        except InputError as error:
            add_fault("folder", str(error))
    return found


def measurement_findings(case: Case, options: Options | ScoreOptions) -> list[Finding]:
    """Return a fault for each thing that a metric or saved masks need, and a case lacks."""
    path, found = case.files.path, []
    needs = "--save_masks" if options.save_masks else options.needs_spacing and "--metrics"
    if needs and case.image.geometry is None:
        convert = "convert the original volume with nifti_to_numpy.py, "
        message = (
            f"{path}: the size of its voxels is unknown; give it with --spacing_mm,"
            f" {convert if path.suffix in NUMPY_SUFFIXES else ''}or leave out {needs}"
        )
        found.append(Finding("spacing", message, is_fault=True))
    if case.image.array.shape[2] == 1 and options.measures(*METRICS_3D):
        message = f"{path}: has one slice; leave out the metrics in 3-D"
        found.append(Finding("slices", message, is_fault=True))
    return found


def written_folders(case: Case, options: Options) -> list[Path]:
    """Return the folders that processing a case writes to."""
    folders = [options.embeddings_folder] if options.embeddings_folder else []
    study_folder = layout.study_folder(options.output_folder, case.files)
    models = options.for_each_model()
    for name in [name for one in models for name in one.protocols_of(case.name)]:
        if options.slice is None:
            folders.append(layout.results_folder(study_folder, name, case.name))
        elif options.debug:
            folders.append(layout.slice_debug_folder(study_folder, name, case.name))
    return folders
