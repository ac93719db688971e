"""One case -> the folders of its exploration, or the numbers of one slice."""

import shutil
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

from sam_lungs.data.case import Case
from sam_lungs.data.windowing import slice_to_rgb
from sam_lungs.prompts.protocols import PromptProtocol
from sam_lungs.segmenters.base import Segmenter
from sam_lungs.study import layout
from sam_lungs.study.explore.engine import ExploredSlice
from sam_lungs.study.explore.kinds import KINDS
from sam_lungs.study.explore.layout import (
    EXPLORE_FOLDER,
    MAPS_FOLDER,
    SUMMARY_NAME,
    VALUES_NAME,
    exploration_folder,
    map_name,
)
from sam_lungs.study.explore.options import MAPS, ExploreOptions
from sam_lungs.study.explore.pictures import save_maps
from sam_lungs.study.explore.results import (
    maps_of,
    summary_table,
    values_table,
    write_map,
    write_tables,
)
from sam_lungs.study.pipeline import PromptedSlice, embed, map_ahead, naming
from sam_lungs.study.process import embedding_store, open_logs
from sam_lungs.study.unfinished import UnfinishedRun
from sam_lungs.utils.files import remove
from sam_lungs.utils.progress import Progress, StudyProgress


def explore_case(
    case: Case,
    segmenters: Sequence[Segmenter],
    options: ExploreOptions,
    *,
    study: StudyProgress | None = None,
) -> int:
    """Explore the missing slices of a case, and write its results.

    Arguments, reports, the status and what is raised are as for `process.process_case`.
    """
    study_folder = layout.study_folder(options.output_folder, case.files)
    folders = {
        name: exploration_folder(study_folder, options.kind, name, case.name)
        for name in options.protocols
    }
    with ExitStack() as stack:
        logs, status = open_logs(stack, case, segmenters[0], options, folders)
        started = datetime.now(UTC).isoformat(timespec="seconds")
        if logs:
            _record(case, segmenters, options, logs, study)
        for name, log in logs.items():
            _finish(case, folders[name], log, options, started)
    return status


def explore_slice(case: Case, segmenters: Sequence[Segmenter], options: ExploreOptions) -> None:
    """Explore the slice of a case that the options name, and print its summary.

    Raises `InputError` when a picture cannot be written, or there is too little memory.
    """
    (found,) = _explored(case, segmenters, options, [options.slice], options.protocols)
    for name, line in found.items():
        if name:
            print(f"{name}:")
        values = values_table([line])
        for quantity, of_object, value in summary_table(values, options).itertuples(index=False):
            print(f"{of_object} {quantity}: {value:.6g}")
        if options.debug:
            study_folder = layout.study_folder(options.output_folder, case.files)
            protocol = Path(EXPLORE_FOLDER, options.kind, name).as_posix()
            folder = layout.slice_debug_folder(study_folder, protocol, case.name)
            _draw(case, folder, line, options)


def _record(
    case: Case,
    segmenters: Sequence[Segmenter],
    options: ExploreOptions,
    logs: dict[str, UnfinishedRun],
    study: StudyProgress | None,
) -> None:
    """Explore the slices that are missing in any log, and append them to it."""
    done = {name: {line["index"] for line in log.lines} for name, log in logs.items()}
    slices = case.lung_slices
    left = [index for index in slices if any(index not in of_log for of_log in done.values())]
    protocols = {name: options.protocols[name] for name in logs}
    with Progress(case.name, len(slices), len(slices) - len(left), study=study) as progress:
        for found in _explored(case, segmenters, options, left, protocols, done):
            for name, line in found.items():
                logs[name].append(line)
            progress.update()


def _explored(
    case: Case,
    segmenters: Sequence[Segmenter],
    options: ExploreOptions,
    indices: Sequence[int],
    protocols: dict[str, PromptProtocol],
    done: dict[str, set[int]] | None = None,
) -> Iterator[dict[str, dict]]:
    """Yield for each slice, in order, the line of each protocol's log.

    done: indices of the slices to leave out, by protocol.
    """
    names = {label: name for name, label in case.objects.items()}
    geometry = case.image.geometry
    store = embedding_store(case, segmenters[0], options)

    def explore(work: tuple[Segmenter, int]) -> dict[str, dict]:
        with naming(f"slice {work[1]}"):
            return explore_one(*work)

    def explore_one(segmenter: Segmenter, index: int) -> dict[str, dict]:
        voxels, masks = (volume.array[:, :, index] for volume in (case.image, case.masks))
        window_hu = case.window and case.window.range_hu
        rgb = slice_to_rgb(voxels, case.window)
        prompted = PromptedSlice(index, voxels, masks, rgb, [], [], window_hu)
        kept = store and store.load(index, voxels)
        picture = None if kept else segmenter.prepare(rgb, prompted.in_window)
        embeddings = embed(segmenter, [(prompted, kept, picture)], store)
        lines = {}
        for name, protocol in protocols.items():
            if done and index in done[name]:
                continue
            started = time.perf_counter()
            of_slice = ExploredSlice(
                case=case.name,
                index=index,
                masks=masks,
                names=names,
                protocol=protocol,
                objects=options.objects,
                spacing_mm=geometry and geometry.spacing_mm[:2],
                segmenter=segmenter,
                embeddings=embeddings,
            )
            tables = KINDS[options.kind].explore(of_slice, options)
            seconds = time.perf_counter() - started
            lines[name] = {"index": index, "seconds": seconds, "tables": tables}
        return lines

    with ThreadPoolExecutor(len(segmenters)) as workers:
        work = zip(cycle(segmenters), indices, strict=False)
        yield from map_ahead(workers, explore, work, len(segmenters))


def _finish(
    case: Case, folder: Path, log: UnfinishedRun, options: ExploreOptions, started: str
) -> None:
    """Write the results, run.json last, and remove the log.

    Raises `InputError` when they cannot be written.
    """
    # Removed first: without run.json the folder is not finished.
    remove(folder / layout.RUN_NAME)
    shutil.rmtree(folder / MAPS_FOLDER, ignore_errors=True)
    if options.kind in MAPS:
        with Progress(f"{case.name}: maps", len(log.lines), unit="picture") as progress:
            for line in log.lines:
                _draw(case, folder / MAPS_FOLDER, line, options)
                progress.update()
    write_tables(folder, values_table(log.lines), options)
    seconds = sum(line["seconds"] for line in log.lines)
    record = replace(
        log.record,
        started=started,
        seconds=round(seconds, 3),
        seconds_per_slice=round(seconds / len(log.lines), 3),
    )
    maps = sorted((folder / MAPS_FOLDER).glob("*"))
    names = [VALUES_NAME, SUMMARY_NAME, *(f"{MAPS_FOLDER}/{path.name}" for path in maps)]
    record.write(folder, names)
    log.discard()


def _draw(case: Case, folder: Path, line: dict, options: ExploreOptions) -> None:
    """Write the maps of a slice as arrays and as a picture."""
    index, maps = line["index"], maps_of(line["tables"])
    masks = case.masks.array[:, :, index]
    labels = case.objects
    references = {name: masks == labels[name] if name in labels else masks != 0 for name in maps}
    rgb = slice_to_rgb(case.image.array[:, :, index], case.window)
    write_map(folder, index, maps)
    picture = folder / map_name(index)
    save_maps(picture, rgb, references, maps, options.step_pixels, case.image.geometry)
