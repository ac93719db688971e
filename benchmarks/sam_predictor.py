r"""Our segmenter beside segment-anything's `SamPredictor`: same weights, slice and prompts.

python -m benchmarks.sam_predictor \
    --image_file_path working_data/image_coronacases_001.npy \
    --masks_file_path working_data/masks_coronacases_001.npy \
    --slice 122 --rounds 3

Prints the median seconds a slice of both, taken in turn in one process, how many pixels of the
two masks differ, and the peak memory of the process.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

import numpy as np
from segment_anything import SamPredictor

from sam_lungs.checkpoints import CHECKPOINTS, fetch, load_sam
from sam_lungs.errors import run_script
from sam_lungs.prompts import PromptProtocol, make_prompts
from sam_lungs.segmenter import SamSegmenter, choose_device
from sam_lungs.volumes import read_pair
from sam_lungs.windowing import choose_window, slice_to_rgb


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Our segmenter beside segment-anything's SamPredictor.", allow_abbrev=False
    )
    parser.add_argument("-i", "--image_file_path", type=Path, required=True)
    parser.add_argument("-m", "--masks_file_path", type=Path, required=True)
    parser.add_argument("-s", "--slice", type=int, required=True)
    parser.add_argument("--model", choices=CHECKPOINTS, default="vit_l")
    parser.add_argument("--checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()

    image, masks, _ = read_pair(args.image_file_path, args.masks_file_path)
    image_rgb = slice_to_rgb(image.array[:, :, args.slice], choose_window("auto", image))
    prompts = make_prompts(masks.array[:, :, args.slice], PromptProtocol())
    sam = load_sam(args.model, args.checkpoint or fetch(args.model))
    segmenter = SamSegmenter(sam, choose_device("auto"))
    predictor = SamPredictor(sam)

    seconds = {"ours": [], "SamPredictor": []}
    for _ in range(args.rounds):
        started = time.perf_counter()
        ours = segmenter.segment(image_rgb, prompts)
        between = time.perf_counter()
        predictor.set_image(image_rgb)
        theirs, score, _ = predictor.predict(
            point_coords=prompts.points_rc[:, ::-1],
            point_labels=prompts.labels,
            box=prompts.box_rc[[1, 0, 3, 2]],
            multimask_output=False,
        )
        seconds["ours"].append(between - started)
        seconds["SamPredictor"].append(time.perf_counter() - between)

    for name, times in seconds.items():
        print(f"{name}: {np.median(times):.2f} s a slice")
    differing = np.count_nonzero(ours.mask != theirs[0])
    print(f"differing pixels: {differing} of {ours.mask.size}")
    print(f"difference of scores: {abs(ours.score - float(score[0])):g}")
    # Linux counts in KiB, macOS in bytes.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    print(f"peak memory: {peak / 1e9:.2f} GB")


if __name__ == "__main__":
    run_script(main)
