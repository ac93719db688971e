"""The interface of all segmenters: RGB slice and prompts -> mask and predicted IoU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from sam_lungs.prompts.protocols import Prompts

if TYPE_CHECKING:  # importing torch takes seconds
    import torch

MODELS = ("vit_b", "vit_l", "vit_h", "compact")
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("float32", "bfloat16", "float16")  # of the image encoder
EMBEDDINGS_PRECISIONS = ("float32", "float16")  # of embeddings on disk


@dataclass(frozen=True, eq=False)
class Prediction:
    """mask: (rows, columns) bool. predicted_iou: the model's estimate of the mask's Jaccard index,
    from 0 to 1.
    """

    mask: np.ndarray
    predicted_iou: float


class Decoded(NamedTuple):
    """Masks of several slices, each with the same number of prompts; tensors on the device.

    masks: (slices, prompts, rows, columns) bool.
    predicted_ious: (slices, prompts) float32, the model's estimate of each mask's Jaccard index.
    mask_logits: (slices, prompts, h, w) float32, the masks' logits at the decoder's resolution.
    """

    masks: torch.Tensor
    predicted_ious: torch.Tensor
    mask_logits: torch.Tensor


class Segmenter(Protocol):
    """A promptable model on one device.

    An embedding is a tuple of tensors, because some models have more than one per slice. In each
    tensor the first dimension is the slices.

    device: where the model runs.
    identity: for `run.json` and the saved embeddings: `model` and `family` (str), `weights` (file
        name -> SHA-256), `preprocessing` (str), `packages` (name -> version).
    prompt_kinds: the prompts that the model accepts, of "points", "negative" and "box".
    """

    device: torch.device
    identity: dict
    prompt_kinds: frozenset[str]

    def prepare(self, image_rgb: np.ndarray) -> torch.Tensor:
        """Return a slice, (rows, columns, 3) uint8, resized for the model, (3, rows, columns).

        May be called from any thread.
        """

    def encode(self, pictures: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return the embedding of slices that `prepare` returned, all of one shape."""

    def decode(
        self,
        embeddings: tuple[torch.Tensor, ...],
        size_rc: tuple[int, int],
        prompts: Sequence[Sequence[Prompts]],
        mask_logits: torch.Tensor | None = None,
    ) -> Decoded:
        """Segment the prompted objects in slices of one size.

        embeddings: of the slices, on the device. size_rc: rows and columns of the slices.
        prompts: one sequence per slice, all of the same length.
        mask_logits: as in an earlier `Decoded` of the same shape, to refine its masks.
        """

    def batch_size(self) -> int:
        """Return how many slices to encode at once: the most that helps and fits in memory."""


def segment(segmenter: Segmenter, image_rgb: np.ndarray, prompts: Prompts) -> Prediction:
    """Segment the prompted object in one slice, (rows, columns, 3) uint8."""
    embeddings = segmenter.encode([segmenter.prepare(image_rgb)])
    decoded = segmenter.decode(embeddings, image_rgb.shape[:2], [[prompts]])
    return Prediction(decoded.masks[0, 0].cpu().numpy(), decoded.predicted_ious.item())
