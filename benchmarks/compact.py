"""Accuracy of the compact SAM on phantoms that were not used for its training.

    python -m benchmarks.compact --patients 8 --slices 24

Prints means over the slices with lung, by variant of the phantom, size of the lungs and disease:
Dice with the paper's prompts; Dice of one lung from a box and a point on it; and the share of lung
in the mask from a point between the lungs.
"""

import time
from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.protocols import PromptProtocol, Prompts
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.segmenters.base import segment
from sam_lungs.segmenters.checkpoints import fetch, load_sam
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.study.metrics import dice
from sam_lungs.synthetic.patient import draw_patient
from sam_lungs.synthetic.phantom import phantom_volume
from sam_lungs.utils.cli import option, parse_options, run_script

SEED = 20240115  # not the seed of the training, 0


@dataclass
class Options:
    """Command-line options."""

    patients: int = option("patients of each variant", 8, group="phantoms")
    slices: int = option("slices per patient", 24, group="phantoms")


def main() -> None:
    options = parse_options(
        Options,
        "Measure the accuracy of the compact SAM on held-out phantoms.",
        "python -m benchmarks.compact --patients 8 --slices 24",
        prog="python -m benchmarks.compact",
    )

    segmenter = SamSegmenter(load_sam("compact", fetch("compact")), torch.device("cpu"))
    rows = []
    for case in tqdm(range(options.patients), desc="patients"):
        diseased = draw_patient(np.random.default_rng([SEED, case])).diseased
        for variant in ("hounsfield", "windowed"):
            image, masks, _ = phantom_volume(SEED, case, options.slices, variant)
            window = LUNG_WINDOW if variant == "hounsfield" else None
            for index in np.flatnonzero(masks.any(axis=(0, 1))):
                rgb = slice_to_rgb(image[:, :, index], window)
                row = {"variant": variant, "disease": "diseased" if diseased else "healthy"}
                rows.append(row | measure(segmenter, rgb, masks[:, :, index]))
    table = pd.DataFrame(rows)
    table["lung"] = pd.cut(
        table.pop("share"), [0, 0.01, 0.05, 1], labels=["under 1 %", "1 to 5 %", "over 5 %"]
    )
    for by in ("variant", "lung", "disease"):
        groups = table.groupby(by, observed=True)
        numbers = groups[["dice", "one_lung", "between", "seconds"]].mean().round(4)
        print(numbers.assign(slices=groups.size()).to_string(), end="\n\n")


def measure(segmenter: SamSegmenter, image_rgb: np.ndarray, masks: np.ndarray) -> dict:
    """Return the measurements of one slice.

    dice, seconds: with the paper's prompts.
    one_lung: mean Dice of the two lungs, each prompted by its own point and box.
    between: share of lung in the mask from the paper's negative point, given as a positive one;
        only where that pixel is bright, that is, no air.
    share: of the slice that is lung.
    """
    lungs = masks > 0
    started = time.perf_counter()
    prompts = make_prompts(masks, PromptProtocol())
    predicted = segment(segmenter, image_rgb, prompts).mask
    row = {
        "dice": dice(predicted, lungs),
        "share": lungs.mean(),
        "seconds": time.perf_counter() - started,
    }
    labels = np.unique(masks[lungs])
    if len(labels) == 2:
        alone = [masks * (masks == label) for label in labels]
        one = PromptProtocol(negative="none")
        row["one_lung"] = np.mean(
            [
                dice(segment(segmenter, image_rgb, make_prompts(lung, one)).mask, lung > 0)
                for lung in alone
            ]
        )
        between_rc = prompts.points_rc[-1:]
        if image_rgb[tuple(between_rc[0])][0] > 170:
            found = segment(segmenter, image_rgb, Prompts(between_rc, np.array([1]), None)).mask
            row["between"] = (found & lungs).sum() / max(found.sum(), 1)
    return row


if __name__ == "__main__":
    run_script(main)
