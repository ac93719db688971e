"""A slice and its prompts -> a mask; the one place that talks to a model."""

import os
from dataclasses import dataclass

import numpy as np
import torch
from segment_anything import SamPredictor
from segment_anything.modeling import Sam

from sam_lungs.errors import InputError
from sam_lungs.prompts import Prompts

DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}


@dataclass(frozen=True, eq=False)
class Prediction:
    """mask: (rows, columns) bool; score: the Jaccard index that SAM expects of its mask."""

    mask: np.ndarray
    score: float


class SamSegmenter:
    """SAM, prompted with one slice at a time.

    The masks are those of segment-anything's `SamPredictor` with `multimask_output=False`.
    """

    def __init__(self, sam: Sam, device: torch.device, precision: str = "float32") -> None:
        """Move the model to the device.

        precision: that of the image encoder, one of `PRECISIONS`; the decoder is always float32.
        """
        _be_repeatable()
        self.predictor = SamPredictor(sam.to(device))
        self.device = device
        self.precision = precision

    @torch.inference_mode()
    def segment(self, image_rgb: np.ndarray, prompts: Prompts) -> Prediction:
        """Segment the prompted object.

        image_rgb: (rows, columns, 3) uint8.
        """
        with torch.autocast(
            self.device.type,
            dtype=PRECISIONS[self.precision],
            enabled=self.precision != "float32",
        ):
            self.predictor.set_image(image_rgb)
        self.predictor.features = self.predictor.features.float()

        resize, size = self.predictor.transform, self.predictor.original_size
        points_xy = resize.apply_coords(prompts.points_rc[None, :, ::-1], size)  # (1, points, 2)
        box_xyxy = None
        if prompts.box_rc is not None:
            box_xyxy = self._on_device(resize.apply_boxes(prompts.box_rc[[1, 0, 3, 2]], size))
        masks, scores, _ = self.predictor.predict_torch(
            point_coords=self._on_device(points_xy),
            point_labels=self._on_device(prompts.labels[None]),
            boxes=box_xyxy,  # (1, 4)
            multimask_output=False,
        )
        return Prediction(masks[0, 0].cpu().numpy(), float(scores[0, 0]))

    def _on_device(self, numbers: np.ndarray) -> torch.Tensor:
        """Cast before moving: Apple's GPUs (mps) have no float64."""
        return torch.as_tensor(numbers.astype(np.float32)).to(self.device)


def choose_device(name: str) -> torch.device:
    """Return the device of that name; `auto` is the first of cuda, mps and cpu that is there.

    Raises `InputError` when a GPU is asked for and there is none.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((gpu for gpu in present if present[gpu]), "cpu")
    if not present.get(name, True):
        raise InputError(f"--device {name}: no such GPU is available here; use --device cpu")
    return torch.device(name)


def _be_repeatable() -> None:
    """Same input, same bits: no TF32, no choice of algorithm by timing."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
