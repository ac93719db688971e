"""The study: volumes -> slices -> prompts -> masks -> metrics -> files."""

import copy
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import torch

from sam_lungs.data.volumes import identify, volume_name
from sam_lungs.data.windowing import slice_to_rgb
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.segmenters import checkpoints
from sam_lungs.segmenters.embeddings import DTYPES, EmbeddingStore
from sam_lungs.segmenters.sam import Prediction, SamSegmenter, choose_devices
from sam_lungs.study.case import Pair, check_names, read_input
from sam_lungs.study.options import Options
from sam_lungs.study.pictures import save_prediction
from sam_lungs.study.pipeline import Pipeline, PromptedSlice, SegmentedSlice
from sam_lungs.study.recorder import Recorder, measure_surface
from sam_lungs.study.results import write_prompts
from sam_lungs.study.resume import CODE, AnotherRun, is_finished, unfinished_run
from sam_lungs.utils import provenance
from sam_lungs.utils.errors import InputError, report
from sam_lungs.utils.files import sha256_of
from sam_lungs.utils.progress import Progress
from sam_lungs.utils.signals import Stop, Stopped


class Study:
    """Volumes processed one after the other with one model, loaded when the first needs it."""

    def __init__(self, options: Options) -> None:
        """Raises `InputError` when the device that is asked for is not there."""
        self.options = options
        self.devices = choose_devices(options.device)
        # Now, because it may change on the disk while the study runs, and this does not.
        self._code = {
            "versions": provenance.versions(),
            "commit": provenance.code_commit(),
            "code_sha256": provenance.code_sha256(CODE),
        }

    def run(self, image_paths: list[Path], masks_paths: list[Path]) -> int:
        """Process the images, each with the masks at the same place of the other list.

        A volume that is finished is skipped, one that was begun goes on where it was stopped. A bad
        volume is reported on standard error and the rest are done. Returns the exit status, 1 if
        any volume was bad.

        Raises `InputError` when two images would share a folder, the model cannot be had, or
        results cannot be written; `Stopped` when a signal asked for it and the slice in hand is
        written.
        """
        check_names(image_paths, masks_paths, self.options)
        self._status = 0
        left = self._unfinished(list(zip(image_paths, masks_paths, strict=True)))
        for (image_path, _), reading in zip(left, self._read_ahead(left), strict=True):
            try:
                pair = reading.result()
            except InputError as error:
                self._fail(error)
                continue
            if pair.warning:
                print(f"warning: {pair.warning}", file=sys.stderr)
            if self.options.slice_index is None:
                self.process_volume(pair)
            else:
                if len(image_paths) > 1:
                    print(f"{image_path}:")
                self._process_slice(pair, self.options.slice_index)
        return self._status

    def _fail(self, error: InputError) -> None:
        """Tell what is wrong with a volume; the others are done."""
        report(error)
        self._status = 1

    def _unfinished(self, pairs: list[tuple[Path, Path]]) -> list[tuple[Path, Path]]:
        """Return the pairs that have slices to do, as far as that is known without reading them."""
        if self.options.slice_index is not None or self.options.overwrite:
            return pairs
        unfinished = []
        for image_path, masks_path in pairs:
            folders = {
                protocol: self.options.results_folder(protocol, image_path)
                for protocol in self.options.protocols
            }
            # What is missing is told where it is read.
            if not (os.path.isfile(image_path) and os.path.isfile(masks_path)) or not any(
                os.path.exists(folder) for folder in folders.values()
            ):
                unfinished.append((image_path, masks_path))
                continue
            self.checkpoint  # noqa: B018  without weights there is no study, with a bad volume there is
            try:
                run = self.describe(
                    *(identify(path, sha256_of(path)) for path in (image_path, masks_path))
                )
                # Of all folders: one that holds another run is found now and not hours later.
                finished = [
                    is_finished(folder, run | self.rules(protocol))
                    for protocol, folder in folders.items()
                ]
            except InputError as error:
                self._fail(error)
                continue
            if all(finished):
                print(f"{volume_name(image_path)}: finished before, skipped")
            else:
                unfinished.append((image_path, masks_path))
        return unfinished

    def _read_ahead(self, pairs: Iterable[tuple[Path, Path]]) -> Iterator[Future[Pair]]:
        """Yield the pairs that are read, each when the next one is being read."""
        with ThreadPoolExecutor(1) as reader:
            reading = deque()
            for pair in pairs:
                reading.append(reader.submit(read_input, *pair, self.options))
                if len(reading) == 2:
                    yield reading.popleft()
            yield from reading

    def _process_slice(self, pair: Pair, index: int) -> None:
        prompted = pair.prompted(self.options.empty_slices)
        if index not in prompted:
            print(f"{pair.image.path}: slice {index} has no lung, so there is nothing to prompt")
            return
        protocols = list(self.options.protocols)
        for segmented in self._segment(self.pipeline, pair, {index: prompted[index]}, protocols):
            for number, protocol in enumerate(protocols):
                if protocol:
                    print(f"{protocol}:")
                overlap = segmented.overlaps[number]
                if not overlap.true:
                    print(f"no lung, but SAM's mask has {overlap.predicted} pixels")
                    continue
                print(f"Jaccard index: {overlap.jaccard:.4f}")
                print(f"Dice score: {overlap.dice:.4f}")
                surface = measure_surface(segmented, number, pair.image, self.options)
                for name, value in surface.items():
                    print(f"{name}: {value:.4f}")

    def process_volume(self, pair: Pair) -> None:
        """Segment what is not segmented yet of a volume, and write its results."""
        # Before the slices, so that it is what was used and not what lies there hours later.
        run = self.describe(pair.image.identity, pair.masks.identity) | {
            "window_hu": pair.window and pair.window.range_hu,
            "geometry_warning": pair.warning,
        }
        recorders: dict[str, Recorder] = {}
        with ExitStack() as journals:
            for protocol in self.options.protocols:
                folder = self.options.results_folder(protocol, pair.image.path)
                try:
                    journal = journals.enter_context(
                        unfinished_run(folder, run | self.rules(protocol), self.options.overwrite)
                    )
                except AnotherRun as error:
                    self._fail(error)
                    continue
                if journal is not None:
                    recorders[protocol] = Recorder(folder, pair.image, self.options, journal)
            if recorders:
                self._record(pair, recorders)
            for recorder in recorders.values():
                recorder.finish()

    def _record(self, pair: Pair, recorders: dict[str, Recorder]) -> None:
        """Segment the slices that are not recorded yet.

        Raises `Stopped` when a signal asked for it.
        """
        prompted = pair.prompted(self.options.empty_slices)
        done = set.intersection(*(recorder.done for recorder in recorders.values()))
        left = {index: shown for index, shown in prompted.items() if index not in done}
        if not left:
            return
        name, first = volume_name(pair.image.path), next(iter(recorders.values()))
        stop = Stop()
        segmented_slices = self._segment(self.pipeline, pair, left, list(recorders), stop)
        clock = time.perf_counter()
        with stop, Progress(name, len(prompted), len(prompted) - len(left)) as progress:
            for segmented in segmented_slices:
                index = segmented.asked.index
                before, clock = clock, time.perf_counter()
                for number, recorder in enumerate(recorders.values()):
                    if index not in recorder.done:
                        recorder.add(segmented, number, prompted[index], clock - before)
                progress.update(remark=f"mean Dice {first.dice:.4f}")
        if stop:
            raise Stopped(
                stop.number,
                f"{len(first.done)} of {len(prompted)} slices of {name} are written; the same"
                f" command{' without --overwrite' if self.options.overwrite else ''} goes on from"
                " there",
            )

    def _segment(
        self,
        pipeline: Pipeline,
        pair: Pair,
        prompted: dict[int, int],
        protocols: list[str],
        stop: Stop | None = None,
    ) -> Iterator[SegmentedSlice]:
        """Yield slices of a volume segmented by protocols, drawn if that is asked for.

        prompted: as `Pair.prompted` returns it. stop: as `Pipeline.run` takes it.
        """
        rules = [self.options.protocols[protocol] for protocol in protocols]

        def read(index: int) -> PromptedSlice:
            voxels, masks = (volume.array[:, :, index] for volume in (pair.image, pair.masks))
            shown = pair.masks.array[:, :, prompted[index]]
            prompts = [make_prompts(shown, each) for each in rules]
            return PromptedSlice(index, voxels, masks, slice_to_rgb(voxels, pair.window), prompts)

        for segmented in pipeline.run(read, prompted, self._embeddings(pair), stop):
            if self.options.debug:
                self._draw(pair, segmented, protocols)
            yield segmented

    def _draw(self, pair: Pair, segmented: SegmentedSlice, protocols: list[str]) -> None:
        asked = segmented.asked
        answers = zip(protocols, asked.prompts, segmented.masks, segmented.scores, strict=True)
        for protocol, prompts, mask, score in answers:
            folder = self.options.debug_folder(protocol, pair.image.path)
            save_prediction(
                folder / f"slice_{asked.index}_prediction.png",
                asked.image_rgb,
                asked.masks,
                prompts,
                Prediction(mask, score),
                pair.image.geometry,
            )
            write_prompts(
                folder / f"slice_{asked.index}_prompt.yml",
                {
                    "image": str(pair.image.path),
                    "masks": str(pair.masks.path),
                    "slice": asked.index,
                },
                prompts,
            )

    def _embeddings(self, pair: Pair) -> EmbeddingStore | None:
        if self.options.embeddings_folder is None:
            return None
        model, (_, checkpoint_sha256) = self.options.model, self.checkpoint
        signature = {
            "window_hu": pair.window and pair.window.range_hu,
            "checkpoint": checkpoint_sha256,
            "precision": self.options.precision,
            "versions": provenance.package_versions(),
        }
        return EmbeddingStore(
            self.options.embeddings_folder / model / volume_name(pair.image.path),
            signature,
            DTYPES[self.options.embeddings_precision],
        )

    @property
    def weights_path(self) -> Path:
        """File of the weights, which need not be there yet."""
        official = checkpoints.CHECKPOINTS[self.options.model].file_name
        return self.options.checkpoint or checkpoints.CHECKPOINTS_FOLDER / official

    @cached_property
    def checkpoint(self) -> tuple[Path, str]:
        """File of the weights, fetched if it is missing, and its SHA-256."""
        model, path = self.options.model, self.options.checkpoint
        if path is not None:
            return path, sha256_of(path)
        path = checkpoints.fetch(model)
        sha256 = sha256_of(path)
        checkpoints.verify(model, path, sha256)
        return path, sha256

    @cached_property
    def pipeline(self) -> Pipeline:
        path, _ = self.checkpoint
        sam = checkpoints.load_sam(
            self.options.model, path, is_verified=self.options.checkpoint is None
        )
        options = self.options
        copies = [sam, *(copy.deepcopy(sam) for _ in self.devices[1:])]
        segmenters = [
            SamSegmenter(one, device, options.precision)
            for one, device in zip(copies, self.devices, strict=True)
        ]
        keep_masks = options.debug or options.save_masks or options.needs_spacing
        return Pipeline(segmenters, options.batch_size, keep_masks)

    def describe(self, image: dict, masks: dict) -> dict:
        """Return what makes the numbers, for `run.json`.

        image, masks: as `volumes.identify` returns them.
        """
        checkpoint_path, checkpoint_sha256 = self.checkpoint
        return {
            "command": sys.argv,
            "options": {
                name: str(value) if isinstance(value, Path) else value
                for name, value in asdict(self.options).items()
            },
            "image": image,
            "masks": masks,
            "checkpoint": {"file": str(checkpoint_path), "sha256": checkpoint_sha256},
            "device": ", ".join(provenance.device_name(device) for device in self.devices),
            "precision": self.options.precision,
            "threads": torch.get_num_threads(),
            **self._code,
        }

    def rules(self, protocol: str) -> dict:
        """Return what `run.json` says of a protocol, besides."""
        return {"protocol": asdict(self.options.protocols[protocol])}
