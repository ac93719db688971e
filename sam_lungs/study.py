"""The study: volumes -> slices -> prompts -> masks -> metrics -> files."""

import os
import sys
import time
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import yaml
from tqdm import tqdm

from sam_lungs import checkpoints, provenance
from sam_lungs.errors import InputError, report
from sam_lungs.figures import save_prediction
from sam_lungs.files import check_writable, replacing, sha256_of
from sam_lungs.metrics import dice, jaccard
from sam_lungs.prompts import PromptProtocol, Prompts, make_prompts
from sam_lungs.results import SliceResult, write_results
from sam_lungs.segmenter import SamSegmenter, choose_device
from sam_lungs.volumes import Volume, read_pair, volume_name
from sam_lungs.windowing import Window, choose_window, slice_to_rgb


@dataclass(frozen=True)
class Options:
    """How a study is run; every default reproduces the paper.

    slice_index: process this one only, and write no results.
    output_folder: the results folder; `results/` beside each image when `None`.
    checkpoint: weights to use in place of the official ones of `model`.
    window: as `windowing.choose_window` takes it.
    """

    slice_index: int | None = None
    debug: bool = False
    dry_run: bool = False
    output_folder: Path | None = None
    model: str = "vit_l"
    checkpoint: Path | None = None
    device: str = "auto"
    precision: str = "float32"
    window: str = "auto"
    protocol: PromptProtocol = field(default_factory=PromptProtocol)
    strict_geometry: bool = False


@dataclass(frozen=True, eq=False)
class Pair:
    """An image, its masks, the window to look through, and a warning if their affines disagree."""

    image: Volume
    masks: Volume
    window: Window | None
    warning: str | None

    @property
    def lung_slices(self) -> np.ndarray:
        """Numbers of the slices that have lung."""
        return np.flatnonzero(self.masks.array.any(axis=(0, 1)))


class Study:
    """Volumes processed one after the other with one model, loaded when the first needs it."""

    def __init__(self, options: Options) -> None:
        """Raises `InputError` when the device that is asked for is not there."""
        self.options = options
        self.device = choose_device(options.device)

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
        folders = [self._results_folder(path) for path in image_paths]
        for folder, path in zip(folders, image_paths, strict=True):
            if folders.count(folder) > 1:
                raise InputError(f"{path}: another image has its name, and so the same {folder}")
        status = 0
        for image_path, masks_path in zip(image_paths, masks_paths, strict=True):
            try:
                pair = self._read(image_path, masks_path)
            except InputError as error:
                report(error)
                status = 1
                continue
            if self.options.dry_run:
                self._announce(pair)
            elif self.options.slice_index is not None:
                if len(image_paths) > 1:
                    print(f"{image_path}:")
                self._process_slice(pair, self.options.slice_index)
            else:
                self._process_volume(pair)
        return status

    def _read(self, image_path: Path, masks_path: Path) -> Pair:
        """Read and check all that can be wrong with a volume before hours are spent on it."""
        image, masks, warning = read_pair(image_path, masks_path, self.options.strict_geometry)
        index, slices = self.options.slice_index, image.array.shape[2]
        if index is not None and not 0 <= index < slices:
            raise InputError(f"{image_path}: no slice {index}; its slices are 0 to {slices - 1}")
        window = choose_window(self.options.window, image)
        if index is None:
            check_writable(self._results_folder(image_path))
        if self.options.debug:
            check_writable(self._debug_folder(image_path))
        if warning:
            print(f"warning: {warning}", file=sys.stderr)
        return Pair(image, masks, window, warning)

    def _announce(self, pair: Pair) -> None:
        name, slices = volume_name(pair.image.path), pair.image.array.shape[2]
        window = "no window"
        if pair.window:
            window = f"window {pair.window.level_hu:g},{pair.window.width_hu:g} HU"
        what = f"{len(pair.lung_slices)} of {slices} slices"
        where = f", write {self._results_folder(pair.image.path)}"
        if self.options.slice_index is not None:
            what, where = f"slice {self.options.slice_index}", ""
        print(f"{name}: would segment {what} with {self.options.model}, {window}{where}")

    def _process_slice(self, pair: Pair, index: int) -> None:
        if index not in pair.lung_slices:
            print(f"{pair.image.path}: slice {index} has no lung, so there is nothing to prompt")
            return
        result = self._segment(self.segmenter, pair, index)
        print(f"Jaccard index: {result.jaccard:.4f}")
        print(f"Dice score: {result.dice:.4f}")

    def _process_volume(self, pair: Pair) -> None:
        folder = self._results_folder(pair.image.path)
        segmenter = self.segmenter
        # Before the slices, so that it is what was used and not what lies there hours later.
        run = self._describe(pair)
        started, clock = datetime.now(timezone.utc), time.perf_counter()
        name = volume_name(pair.image.path)
        results = [
            self._segment(segmenter, pair, index)
            for index in tqdm(range(pair.image.array.shape[2]), desc=name, unit="slice")
        ]
        seconds = time.perf_counter() - clock
        took = {
            "started": started.isoformat(timespec="seconds"),
            "seconds": round(seconds, 3),
            "seconds_per_lung_slice": round(seconds / len(pair.lung_slices), 3),
        }
        write_results(folder, results, took | run)

    def _segment(self, segmenter: SamSegmenter, pair: Pair, index: int) -> SliceResult:
        """Segment a slice, compare, and draw it if asked; one without lung is not prompted."""
        masks = pair.masks.array[:, :, index]
        lung_pixels = np.count_nonzero(masks)
        if lung_pixels == 0:
            return SliceResult(index, None, None, None, 0, None)
        image_rgb = slice_to_rgb(pair.image.array[:, :, index], pair.window)
        prompts = make_prompts(masks, self.options.protocol)
        prediction = segmenter.segment(image_rgb, prompts)
        if self.options.debug:
            folder = self._debug_folder(pair.image.path)
            picture = folder / f"slice_{index}_prediction.png"
            save_prediction(picture, image_rgb, masks, prompts, prediction, pair.image.geometry)
            _write_prompts(folder / f"slice_{index}_prompt.yml", pair, index, prompts)
        return SliceResult(
            slice=index,
            jaccard=jaccard(prediction.mask, masks != 0),
            dice=dice(prediction.mask, masks != 0),
            score=prediction.score,
            lung_pixels=lung_pixels,
            predicted_pixels=np.count_nonzero(prediction.mask),
        )

    def _results_folder(self, image_path: Path) -> Path:
        results = self.options.output_folder or image_path.parent / "results"
        # Written out, so that equal folders look equal and each has a parent.
        return Path(os.path.abspath(results / volume_name(image_path)))

    def _debug_folder(self, image_path: Path) -> Path:
        results = self._results_folder(image_path)
        return results.parent.parent / "debug" / results.name

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
    def segmenter(self) -> SamSegmenter:
        path, _ = self.checkpoint
        sam = checkpoints.load_sam(self.options.model, path)
        return SamSegmenter(sam, self.device, self.options.precision)

    def _describe(self, pair: Pair) -> dict:
        """What made the numbers, for `run.json`."""
        on_gpu = self.device.type == "cuda"
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
            "device": torch.cuda.get_device_name(self.device) if on_gpu else self.device.type,
            "precision": self.options.precision,
            "threads": torch.get_num_threads(),
            "versions": provenance.versions(),
            "commit": provenance.code_commit(),
        }


def _identify(path: Path) -> dict[str, str]:
    return {"file": str(path), "sha256": sha256_of(path)}


def _write_prompts(path: Path, pair: Pair, index: int, prompts: Prompts) -> None:
    """Write the prompts of a slice as YAML; raises `InputError` when that fails."""
    record = {
        "image": str(pair.image.path),
        "masks": str(pair.masks.path),
        "slice": index,
        "points": [
            {"row": int(row), "column": int(column), "label": int(label)}
            for (row, column), label in zip(prompts.points_rc, prompts.labels, strict=True)
        ],
        "box": None,
    }
    if prompts.box_rc is not None:
        corners = ("row_min", "column_min", "row_max", "column_max")
        record["box"] = dict(zip(corners, prompts.box_rc.tolist(), strict=True))
    with replacing(path) as temporary:
        temporary.write_text(yaml.safe_dump(record, sort_keys=False))
