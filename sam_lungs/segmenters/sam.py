"""Slices and their prompts -> masks; the one place that talks to a model."""

import os
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from sam_lungs.prompts.rules import Prompts
from sam_lungs.segmenters.sam_encoder import Encoder
from sam_lungs.study import options
from sam_lungs.utils.errors import InputError

PRECISIONS = {name: getattr(torch, name) for name in options.PRECISIONS}

# What a slice of ViT-H needs on a GPU, rounded up, and beyond how many a GPU gains nothing.
GPU_BYTES_A_SLICE = 2_000_000_000
GPU_SLICES = 16


@dataclass(frozen=True, eq=False)
class Prediction:
    """mask: (rows, columns) bool; score: the Jaccard index that SAM expects of its mask."""

    mask: np.ndarray
    score: float


class SamSegmenter:
    """SAM on one device.

    The masks are those of segment-anything's `SamPredictor` with `multimask_output=False`, but for
    pixels that the last digits of float32 decide. On a CPU what is computed together with a slice
    changes no digit of its answer.
    """

    def __init__(self, sam: Sam, device: torch.device, precision: str = "float32") -> None:
        """Take over the model: it moves to the device.

        precision: that of the image encoder, one of `options.PRECISIONS`, see `encoder`; the
            decoder is always float32.
        """
        _be_repeatable()
        self.device = device
        self._sam = sam.to(device)
        self._encoder = Encoder(sam.image_encoder, PRECISIONS[precision])
        self._resize = ResizeLongestSide(sam.image_encoder.img_size)
        self._one_by_one = device.type == "cpu"

    def segment(self, image_rgb: np.ndarray, prompts: Prompts) -> Prediction:
        """Segment the prompted object in one slice, (rows, columns, 3) uint8."""
        embeddings = self.encode([self.resize(image_rgb)])
        masks, scores = self.decode(embeddings, image_rgb.shape[:2], [[prompts]])
        return Prediction(masks[0, 0].cpu().numpy(), scores.item())

    def resize(self, image_rgb: np.ndarray) -> torch.Tensor:
        """Return a slice, (rows, columns, 3) uint8, as large as SAM wants it, channels first."""
        resized = torch.as_tensor(self._resize.apply_image(image_rgb)).permute(2, 0, 1).contiguous()
        return resized.pin_memory() if self.device.type == "cuda" else resized

    @torch.inference_mode()
    def encode(self, pictures: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the embeddings of slices, (slices, channels, side, side) float32.

        pictures: of one shape, as `resize` returns them.
        """
        pictures = [picture.to(self.device, non_blocking=True) for picture in pictures]
        # A CPU gains nothing from batches, in which the last digits would depend on the others.
        size = 1 if self._one_by_one else len(pictures)
        batches = torch.stack(pictures).split(size)
        return torch.cat([self._encoder.encode(self._sam.preprocess(batch)) for batch in batches])

    @torch.inference_mode()
    def decode(
        self,
        embeddings: torch.Tensor,
        size_rc: tuple[int, int],
        prompts: Sequence[Sequence[Prompts]],
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Segment what is prompted in slices of one size, each as often as it has prompts.

        embeddings: of the slices, as `encode` returns them, on this device. size_rc: their rows and
        columns. prompts: for each slice the same number of them.

        Returns, on the device, masks (slices, prompts, rows, columns) bool and scores (slices,
        prompts) float32, the Jaccard index that SAM expects of each mask.
        """
        shape = len(prompts), len(prompts[0])
        masks = torch.empty((*shape, *size_rc), dtype=torch.bool, device=self.device)
        scores = torch.empty(shape, device=self.device)
        # Padding a prompt with points that are none would change what SAM answers.
        alike = defaultdict(list)
        for place in np.ndindex(shape):
            prompt = prompts[place[0]][place[1]]
            kind = place if self._one_by_one else (len(prompt.labels), prompt.box_rc is None)
            alike[kind].append((place, prompt))
        for group in alike.values():
            places, of_group = zip(*group, strict=True)
            slices, columns = torch.tensor(places, device=self.device).T
            masks[slices, columns], scores[slices, columns] = self._decode_alike(
                embeddings[slices], size_rc, of_group
            )
        return masks, scores

    def _decode_alike(
        self, embeddings: torch.Tensor, size_rc: tuple[int, int], prompts: Sequence[Prompts]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Segment one prompt with each embedding; all have as many points, and a box or none."""
        points_rc = np.stack([prompt.points_rc for prompt in prompts])
        points_xy = self._resize.apply_coords(points_rc[..., ::-1], size_rc)
        labels = np.stack([prompt.labels for prompt in prompts])
        boxes_xyxy = None
        if prompts[0].box_rc is not None:
            boxes_xyxy = np.stack([prompt.box_rc[[1, 0, 3, 2]] for prompt in prompts])
            boxes_xyxy = self._on_device(self._resize.apply_boxes(boxes_xyxy, size_rc))
        sparse, dense = self._sam.prompt_encoder(
            points=(self._on_device(points_xy), self._on_device(labels)),
            boxes=boxes_xyxy,
            masks=None,
        )
        # The decoder takes one image, and adds to it the dense embedding of each of its prompts.
        logits, scores = self._sam.mask_decoder(
            image_embeddings=torch.zeros_like(embeddings[:1]),
            image_pe=self._sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=embeddings + dense,
            multimask_output=False,
        )
        input_size = self._resize.get_preprocess_shape(*size_rc, self._resize.target_length)
        logits = self._sam.postprocess_masks(logits, input_size, size_rc)
        return logits[:, 0] > self._sam.mask_threshold, scores[:, 0]

    def _on_device(self, numbers: np.ndarray) -> torch.Tensor:
        """Cast before moving: Apple's GPUs (mps) have no float64."""
        return torch.as_tensor(numbers.astype(np.float32)).to(self.device)

    def batch_size(self) -> int:
        """Return how many slices to encode at once: as many as it gains from and has memory for."""
        if self.device.type == "cuda":
            free_bytes, _ = torch.cuda.mem_get_info(self.device)
            return int(np.clip(free_bytes // GPU_BYTES_A_SLICE, 1, GPU_SLICES))
        return 1


def choose_devices(name: str) -> list[torch.device]:
    """Return all devices of that kind; `auto` is the first of cuda, mps and cpu that is there.

    Raises `InputError` when a GPU is asked for and there is none.
    """
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((gpu for gpu in present if present[gpu]), "cpu")
    if not present.get(name, True):
        raise InputError(f"--device {name}: no such GPU is available here; use --device cpu")
    if name == "cuda":
        return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    return [torch.device(name)]


def _be_repeatable() -> None:
    """Same input, same bits: no TF32, no choice of algorithm by timing."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
