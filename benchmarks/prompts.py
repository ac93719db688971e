"""Time and agreement of many prompts on one slice: `SamPredictor`, one by one, and ours.

    python -m benchmarks.prompts --model vit_l --prompts 200 --rounds 5

Both get the same embedding, and return masks of the slice's size. They and our image encoder take
turns in one process, on the CPU. Without --checkpoint the weights are untrained, which does not
change the times. The CPU time is per thread: other processes disturb it less than the elapsed time.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from segment_anything import SamPredictor

from benchmarks import weights
from benchmarks.machine import report
from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.protocols import Prompts
from sam_lungs.segmenters.checkpoints import CHECKPOINTS
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.synthetic.phantom import sample_slice
from sam_lungs.utils.cli import option, parse_options, run_script

SIDE = 512  # of the slice


@dataclass
class Options:
    """Command-line options."""

    model: str = option("size of SAM", "vit_l", group="model", choices=list(CHECKPOINTS))
    checkpoint: Path | None = option("file of its weights", None, group="model")
    prompts: int = option("prompts of each kind", 200, group="data")
    rounds: int = option("turns that the prompts are divided into", 5, group="output")
    json: Path | None = option("also write the table to this file", None, group="output")


@dataclass
class Kind:
    """A kind of prompts, and what was measured with it; times are in ms per prompt."""

    name: str
    points: int
    box: bool = False
    mask_prompt: bool = False
    multimask: bool = False
    theirs: list[np.ndarray] = field(default_factory=list)  # (2,): elapsed, CPU
    ours: list[np.ndarray] = field(default_factory=list)
    pixels: int = 0
    positive: int = 0
    differ: int = 0

    def draw(self, generator: np.random.Generator) -> Prompts:
        top, left = generator.integers(0, SIDE // 2, 2)
        rows, columns = generator.integers(50, SIDE // 2, 2)
        return Prompts(
            generator.integers(0, SIDE, (self.points, 2)),
            np.arange(1, self.points + 1) % 3 > 0,  # every third point is negative
            np.array([top, left, top + rows, left + columns]) if self.box else None,
        )


def main() -> None:
    options = parse_options(
        Options,
        "Measure time and agreement of many prompts on one slice.",
        "python -m benchmarks.prompts --model vit_l --prompts 200 --rounds 5",
        prog="python -m benchmarks.prompts",
    )
    device = torch.device("cpu")
    sam = weights.load(options.model, options.checkpoint)
    ours, theirs = SamSegmenter(sam, device), SamPredictor(sam)
    hu, _ = sample_slice(np.random.default_rng([1, 0]), SIDE, SIDE, "hounsfield")
    pictures = [ours.prepare(slice_to_rgb(hu, LUNG_WINDOW))]
    embeddings = ours.encode(pictures)
    theirs.features, theirs.is_image_set = embeddings[0], True
    theirs.original_size, theirs.input_size = hu.shape, pictures[0].shape[1:]

    kinds = [
        Kind("one click", 1),
        Kind("one click, three masks", 1, multimask=True),
        Kind("three points and a box", 3, box=True),
        Kind("one click and a mask prompt", 1, mask_prompt=True),
    ]
    encoding = []
    generator = np.random.default_rng(0)
    for size in np.diff(np.linspace(0, options.prompts, options.rounds + 1, dtype=int)):
        encoding.append(time_of(ours.encode, pictures)[0])
        for kind in kinds:
            prompts = [kind.draw(generator) for _ in range(size)]
            given = None
            if kind.mask_prompt:
                given = ours.decode_slice(embeddings, hu.shape, prompts[::-1]).mask_logits
            elapsed, expected = time_of(predict, theirs, prompts, given, kind.multimask)
            kind.theirs.append(elapsed / size * 1e3)
            elapsed, decoded = time_of(
                ours.decode_slice, embeddings, hu.shape, prompts, given, kind.multimask
            )
            kind.ours.append(elapsed / size * 1e3)
            masks = decoded.masks.numpy().reshape(expected.shape)
            kind.pixels += masks.size
            kind.positive += np.count_nonzero(masks)
            kind.differ += np.count_nonzero(masks != expected)

    encoding_elapsed, encoding_cpu = np.median(encoding, axis=0)
    rows = []
    for kind in kinds:
        (theirs_ms, theirs_cpu_ms), (ours_ms, ours_cpu_ms) = (
            np.median(times, axis=0) for times in (kind.theirs, kind.ours)
        )
        rows.append(
            {
                "prompts": kind.name,
                "SamPredictor ms": theirs_ms,
                "ours ms": ours_ms,
                "ratio": theirs_ms / ours_ms,
                "SamPredictor CPU ms": theirs_cpu_ms,
                "ours CPU ms": ours_cpu_ms,
                "CPU ratio": theirs_cpu_ms / ours_cpu_ms,
                "1000 / encode": ours_ms / encoding_elapsed,
                "1000 / encode, CPU": ours_cpu_ms / encoding_cpu,
                "pixels in 100,000 differ": 1e5 * kind.differ / kind.pixels,
                "of the pixels positive": kind.positive / kind.pixels,
            }
        )
    report(rows, device, options.json)
    print(
        f"{options.prompts} prompts of each kind in {options.rounds} rounds, medians; one encode"
        f" ({options.model}, float32) {encoding_elapsed:.1f} s, CPU {encoding_cpu:.1f} s"
    )


def time_of(function: Callable, *arguments: object) -> tuple[np.ndarray, object]:
    """Return the elapsed time and the CPU time per thread of a call, (2,) seconds; its result."""
    started = np.array([time.perf_counter(), time.process_time()])
    result = function(*arguments)
    seconds = np.array([time.perf_counter(), time.process_time()]) - started
    return seconds / [1, torch.get_num_threads()], result


def predict(
    predictor: SamPredictor,
    prompts: list[Prompts],
    mask_logits: torch.Tensor | None,
    multimask: bool,
) -> np.ndarray:
    """Return the masks of each prompt, (prompts, masks, rows, columns) bool."""
    return np.stack(
        [
            predictor.predict(
                prompt.points_xy,
                prompt.labels,
                prompt.box_xyxy,
                None if mask_logits is None else mask_logits[number, None].numpy(),
                multimask,
            )[0]
            for number, prompt in enumerate(prompts)
        ]
    )


if __name__ == "__main__":
    run_script(main)
