"""How well the compact SAM does on phantoms that it was not trained on.

python -m benchmarks.compact --patients 8 --slices 24

Prints, for both variants of the phantom and by difficulty, the mean Dice score with the paper's
prompts over the slices that have lung; and whether the prompts are followed: what a box and a point
on one lung give, and what a point between the lungs gives.
"""

import argparse
import time

import numpy as np
import pandas as pd
import torch
from tqdm import tqdm

from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.rules import PromptProtocol, Prompts, make_prompts
from sam_lungs.segmenters.checkpoints import fetch, load_sam
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.study.metrics import dice
from sam_lungs.synthetic.patient import draw_patient
from sam_lungs.synthetic.phantom import phantom_volume
from sam_lungs.utils.errors import run_script

SEED = 20240115  # the training's is 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description="The compact SAM on held-out phantoms.", allow_abbrev=False
    )
    parser.add_argument("--patients", type=int, default=8, help="of each variant")
    parser.add_argument("--slices", type=int, default=24, help="of each patient")
    args = parser.parse_args()

    segmenter = SamSegmenter(load_sam("compact", fetch("compact")), torch.device("cpu"))
    rows = []
    for case in tqdm(range(args.patients), desc="patients"):
        diseased = draw_patient(np.random.default_rng([SEED, case])).diseased
        for variant in ("hounsfield", "windowed"):
            image, masks, _ = phantom_volume(SEED, case, args.slices, variant)
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
    """Return what one slice gives: `dice` with the paper's prompts, and of the others

    `one_lung`: mean Dice of each of two lungs, prompted by its own point and box;
    `between`: share of a mask that lies in the lungs, prompted by the paper's negative point as if
    it were positive, where that is bright and so no air;
    `share`: of the slice that is lung; `seconds`: for the paper's prompts.
    """
    lungs = masks > 0
    started = time.perf_counter()
    prompts = make_prompts(masks, PromptProtocol())
    predicted = segmenter.segment(image_rgb, prompts).mask
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
                dice(segmenter.segment(image_rgb, make_prompts(lung, one)).mask, lung > 0)
                for lung in alone
            ]
        )
        between_rc = prompts.points_rc[-1:]
        if image_rgb[tuple(between_rc[0])][0] > 170:
            found = segmenter.segment(image_rgb, Prompts(between_rc, np.array([1]), None)).mask
            row["between"] = (found & lungs).sum() / max(found.sum(), 1)
    return row


if __name__ == "__main__":
    run_script(main)
