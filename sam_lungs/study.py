"""The study: volumes -> slices -> prompts -> masks -> metrics -> files."""

import copy
import os
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from sam_lungs import checkpoints, provenance
from sam_lungs.embeddings import DTYPES, EmbeddingStore
from sam_lungs.errors import InputError, report
from sam_lungs.figures import save_prediction
from sam_lungs.files import check_writable, sha256_of
from sam_lungs.options import Options
from sam_lungs.pipeline import Pipeline, PromptedSlice, SegmentedSlice
from sam_lungs.prompts import make_prompts
from sam_lungs.recorder import Recorder, measure_surface
from sam_lungs.results import SURFACE_METRICS, write_prompts
from sam_lungs.segmenter import Prediction, SamSegmenter, choose_devices
from sam_lungs.volumes import Volume, read_pair, volume_name
from sam_lungs.windowing import Window, choose_window, slice_to_rgb


@dataclass(frozen=True, eq=False)
class Pair:
    """An image, its masks, the window to look through, and a warning if their affines disagree."""

    image: Volume
    masks: Volume
    window: Window | None
    warning: str | None

    @cached_property
    def lung_slices(self) -> list[int]:
        """Numbers of the slices that have lung."""
        return np.flatnonzero(self.masks.array.any(axis=(0, 1))).tolist()


class Study:
    """Volumes processed one after the other with one model, loaded when the first needs it."""

    def __init__(self, options: Options) -> None:
        """Raises `InputError` when the device that is asked for is not there."""
        self.options = options
        self.devices = choose_devices(options.device)

    def run(self, image_paths: list[Path], masks_paths: list[Path]) -> int:
        """Process the images, each with the masks at the same place of the other list.

        A bad volume is reported on standard error and the rest are done. Returns the exit status,
        1 if any volume was bad.

        Raises `InputError` when the lists do not pair up, two images would share a folder, the
        model cannot be had, or results cannot be written.
        """
        if len(image_paths) != len(masks_paths):
            raise InputError(
                f"{len(image_paths)} images but {len(masks_paths)} masks: give as many, in order"
            )
        names = [self._results_folder("", path) for path in image_paths]
        for name, path in zip(names, image_paths, strict=True):
            if names.count(name) > 1:
                raise InputError(f"{path}: another image has its name, and so the same {name}")
        status = 0
        pairs = zip(image_paths, masks_paths, strict=True)
        for image_path, reading in zip(image_paths, self._read_ahead(pairs), strict=True):
            try:
                pair = reading.result()
            except InputError as error:
                report(error)
                status = 1
                continue
            if pair.warning:
                print(f"warning: {pair.warning}", file=sys.stderr)
            if self.options.dry_run:
                self._announce(pair)
            elif self.options.slice_index is not None:
                if len(image_paths) > 1:
                    print(f"{image_path}:")
                self._process_slice(pair, self.options.slice_index)
            else:
                self._process_volume(pair)
        return status

    def _read_ahead(self, pairs: Iterable[tuple[Path, Path]]) -> Iterator[Future[Pair]]:
        """Yield the pairs that are read, each when the next one is being read."""
        with ThreadPoolExecutor(1) as reader:
            reading = deque()
            for pair in pairs:
                reading.append(reader.submit(self._read, *pair))
                if len(reading) == 2:
                    yield reading.popleft()
            yield from reading

    def _read(self, image_path: Path, masks_path: Path) -> Pair:
        """Read and check all that can be wrong with a volume before hours are spent on it."""
        image, masks, warning = read_pair(image_path, masks_path, self.options.strict_geometry)
        index, slices = self.options.slice_index, image.array.shape[2]
        if index is not None and not 0 <= index < slices:
            raise InputError(f"{image_path}: no slice {index}; its slices are 0 to {slices - 1}")
        window = choose_window(self.options.window, image)
        needs = "--save_masks" if self.options.save_masks else self._needs_spacing and "--metrics"
        if needs and image.geometry is None:
            raise InputError(
                f"{image_path}: its affine is not known, and so neither where masks would lie nor"
                f" how long a pixel is; convert it with nifti_to_numpy.py, or run without {needs}"
            )
        for protocol in self.options.protocols:
            if index is None:
                check_writable(self._results_folder(protocol, image_path))
            if self.options.debug:
                check_writable(self._debug_folder(protocol, image_path))
        if self.options.embeddings_folder:
            check_writable(self.options.embeddings_folder)
        return Pair(image, masks, window, warning)

    @property
    def _needs_spacing(self) -> bool:
        return any(metric in SURFACE_METRICS for metric in self.options.metrics)

    def _announce(self, pair: Pair) -> None:
        name, slices = volume_name(pair.image.path), pair.image.array.shape[2]
        window = "no window"
        if pair.window:
            window = f"window {pair.window.level_hu:g},{pair.window.width_hu:g} HU"
        what, where = f"slice {self.options.slice_index}", []
        if self.options.slice_index is None:
            what = f"{len(self._prompted(pair))} of {slices} slices"
            where = [
                f", write {self._results_folder(protocol, pair.image.path)}"
                for protocol in self.options.protocols
            ]
        model = self.options.model
        print(f"{name}: would segment {what} with {model}, {window}{''.join(where)}")

    def _process_slice(self, pair: Pair, index: int) -> None:
        prompted = self._prompted(pair)
        if index not in prompted:
            print(f"{pair.image.path}: slice {index} has no lung, so there is nothing to prompt")
            return
        for segmented in self._segment(pair, {index: prompted[index]}):
            for number, protocol in enumerate(self.options.protocols):
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

    def _process_volume(self, pair: Pair) -> None:
        # Before the slices, so that it is what was used and not what lies there hours later.
        run = self._describe(pair)
        started, clock = datetime.now(timezone.utc), time.perf_counter()
        prompted = self._prompted(pair)
        recorders = {
            protocol: Recorder(pair.image, self.options) for protocol in self.options.protocols
        }
        name = volume_name(pair.image.path)
        segmented_slices = self._segment(pair, prompted)
        for segmented in tqdm(segmented_slices, name, len(prompted), unit="slice"):
            for number, recorder in enumerate(recorders.values()):
                recorder.add(segmented, number, prompted[segmented.asked.index])
        seconds = time.perf_counter() - clock
        took = {
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "seconds_per_slice": round(seconds / len(prompted), 3),
        }
        for protocol, recorder in recorders.items():
            rules = {"protocol": asdict(self.options.protocols[protocol])}
            recorder.write(self._results_folder(protocol, pair.image.path), took | rules | run)

    def _prompted(self, pair: Pair) -> dict[int, int]:
        """Return the slices to segment, and of each the slice whose masks prompt it."""
        if self.options.empty_slices == "skip":
            return {index: index for index in pair.lung_slices}
        lung_slices = np.array(pair.lung_slices)
        # Of two that are as near the first.
        return {
            index: int(lung_slices[np.argmin(np.abs(lung_slices - index))])
            for index in range(pair.image.array.shape[2])
        }

    def _segment(self, pair: Pair, prompted: dict[int, int]) -> Iterator[SegmentedSlice]:
        """Yield slices of a volume segmented by every protocol, drawn if that is asked for.

        prompted: as `_prompted` returns it.
        """

        def read(index: int) -> PromptedSlice:
            voxels, masks = (volume.array[:, :, index] for volume in (pair.image, pair.masks))
            shown = pair.masks.array[:, :, prompted[index]]
            prompts = [make_prompts(shown, rules) for rules in self.options.protocols.values()]
            return PromptedSlice(index, voxels, masks, slice_to_rgb(voxels, pair.window), prompts)

        for segmented in self.pipeline.run(read, prompted, self._embeddings(pair)):
            if self.options.debug:
                self._draw(pair, segmented)
            yield segmented

    def _draw(self, pair: Pair, segmented: SegmentedSlice) -> None:
        asked = segmented.asked
        answers = zip(
            self.options.protocols, asked.prompts, segmented.masks, segmented.scores, strict=True
        )
        for protocol, prompts, mask, score in answers:
            folder = self._debug_folder(protocol, pair.image.path)
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

    def _results_folder(self, protocol: str, image_path: Path) -> Path:
        results = self.options.output_folder or image_path.parent / "results"
        # Written out, so that equal folders look equal and each has a parent.
        return Path(os.path.abspath(results / protocol / volume_name(image_path)))

    def _debug_folder(self, protocol: str, image_path: Path) -> Path:
        results = self._results_folder("", image_path)
        return results.parent.parent / "debug" / protocol / results.name

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
        sam = checkpoints.load_sam(self.options.model, path)
        copies = [sam, *(copy.deepcopy(sam) for _ in self.devices[1:])]
        segmenters = [
            SamSegmenter(one, device, self.options.precision)
            for one, device in zip(copies, self.devices, strict=True)
        ]
        keep_masks = self.options.debug or self.options.save_masks or self._needs_spacing
        return Pipeline(segmenters, self.options.batch_size, keep_masks)

    def _describe(self, pair: Pair) -> dict:
        """What made the numbers, for `run.json`."""
        checkpoint_path, checkpoint_sha256 = self.checkpoint
        return {
            "command": sys.argv,
            "options": {
                name: str(value) if isinstance(value, Path) else value
                for name, value in asdict(self.options).items()
            },
            "image": _identify(pair.image.path),
            "masks": _identify(pair.masks.path),
            "window_hu": pair.window and pair.window.range_hu,
            "geometry_warning": pair.warning,
            "checkpoint": {"file": str(checkpoint_path), "sha256": checkpoint_sha256},
            "device": ", ".join(provenance.device_name(device) for device in self.devices),
            "precision": self.options.precision,
            "threads": torch.get_num_threads(),
            "versions": provenance.versions(),
            "commit": provenance.code_commit(),
        }


def _identify(path: Path) -> dict[str, str]:
    return {"file": str(path), "sha256": sha256_of(path)}
