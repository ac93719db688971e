"""The study as it was first done: one slice after the other through segment-anything's predictor.

    python -m benchmarks.slice_by_slice MODEL CHECKPOINT DEVICE TABLE IMAGE MASKS [IMAGE MASKS ...]

Writes the slices of all volumes into one table.
"""

import sys
from pathlib import Path

import numpy as np
import pandas as pd
from segment_anything import SamPredictor

from sam_lungs.data.volumes import read_pair
from sam_lungs.data.windowing import choose_window, slice_to_rgb
from sam_lungs.prompts.rules import PromptProtocol, make_prompts
from sam_lungs.segmenters.checkpoints import load_sam
from sam_lungs.segmenters.sam import choose_devices
from sam_lungs.study.metrics import dice, jaccard


def main(model: str, checkpoint: str, device: str, table: str, *paths: str) -> None:
    predictor = SamPredictor(load_sam(model, Path(checkpoint)).to(choose_devices(device)[0]))
    rows = []
    for image_path, masks_path in zip(paths[::2], paths[1::2], strict=True):
        image, masks, _ = read_pair(Path(image_path), Path(masks_path))
        window = choose_window("auto", image)
        for index in np.flatnonzero(masks.array.any(axis=(0, 1))):
            true = masks.array[:, :, index]
            prompts = make_prompts(true, PromptProtocol())
            predictor.set_image(slice_to_rgb(image.array[:, :, index], window))
            predicted, score, _ = predictor.predict(
                point_coords=prompts.points_rc[:, ::-1],
                point_labels=prompts.labels,
                box=prompts.box_rc[[1, 0, 3, 2]],
                multimask_output=False,
            )
            rows.append(
                {
                    "image": Path(image_path).stem,
                    "slice": index,
                    "jaccard": jaccard(predicted[0], true > 0),
                    "dice": dice(predicted[0], true > 0),
                    "score": score[0],
                }
            )
    pd.DataFrame(rows).to_csv(table, index=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
