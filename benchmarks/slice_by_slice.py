r"""The original study: one slice after the other through segment-anything's predictor.

    python -m benchmarks.slice_by_slice -i image_1.npy -m masks_1.npy --table out.csv \
        --model vit_b --checkpoint checkpoints/sam_vit_b_01ec64.pth

Writes the slices of all volumes to one table.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from segment_anything import SamPredictor

from sam_lungs.data.case import read_case
from sam_lungs.data.case_files import CaseFiles
from sam_lungs.data.windowing import slice_to_rgb
from sam_lungs.prompts.protocols import PromptProtocol
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.segmenters.base import DEVICES
from sam_lungs.segmenters.checkpoints import CHECKPOINTS, load_sam
from sam_lungs.segmenters.devices import choose_devices
from sam_lungs.study.metrics import dice, jaccard
from sam_lungs.utils.cli import option, parse_options, run_script


@dataclass
class Options:
    """Command-line options."""

    image_file_path: Sequence[Path] = option("volumes", group="data", short="-i")
    masks_file_path: Sequence[Path] = option(
        "their lung masks, in the same order", group="data", short="-m"
    )
    table: Path = option("table to write", group="data")
    model: str = option("size of SAM", group="model", choices=list(CHECKPOINTS))
    checkpoint: Path = option("file of its weights", group="model")
    device: str = option("where to compute", "auto", group="model", choices=DEVICES)


def main() -> None:
    options = parse_options(
        Options,
        "Segment the slices of volumes one by one with segment-anything's predictor.",
        "python -m benchmarks.slice_by_slice -i image_1.npy -m masks_1.npy --table out.csv"
        " --model vit_b --checkpoint checkpoints/sam_vit_b_01ec64.pth",
        prog="python -m benchmarks.slice_by_slice",
    )
    device = choose_devices(options.device)[0]
    predictor = SamPredictor(load_sam(options.model, options.checkpoint).to(device))
    rows = []
    for image_path, masks_path in zip(
        options.image_file_path, options.masks_file_path, strict=True
    ):
        case = read_case(CaseFiles(image_path, (masks_path,)))
        for index in case.lung_slices:
            reference = case.masks.array[:, :, index]
            prompts = make_prompts(reference, PromptProtocol())
            predictor.set_image(slice_to_rgb(case.image.array[:, :, index], case.window))
            predicted, predicted_iou, _ = predictor.predict(
                point_coords=prompts.points_xy,
                point_labels=prompts.labels,
                box=prompts.box_xyxy,
                multimask_output=False,
            )
            rows.append(
                {
                    "image": image_path.stem,
                    "slice": index,
                    "jaccard": jaccard(predicted[0], reference > 0),
                    "dice": dice(predicted[0], reference > 0),
                    "score": predicted_iou[0],
                }
            )
    pd.DataFrame(rows).to_csv(options.table, index=False)


if __name__ == "__main__":
    run_script(main)
