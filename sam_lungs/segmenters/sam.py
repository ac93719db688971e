"""Segment Anything behind the interface of `segmenters.base`.

Kirillov et al., Segment Anything, ICCV 2023, arXiv:2304.02643.
"""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from sam_lungs.prompts.protocols import Prompts
from sam_lungs.segmenters.base import Decoded
from sam_lungs.segmenters.devices import be_repeatable
from sam_lungs.segmenters.sam_encoder import Encoder

GPU_BYTES_PER_SLICE = 2_000_000_000  # of ViT-H, rounded up
MAX_GPU_SLICES = 16  # larger batches are not faster


class SamSegmenter:
    """SAM on one device.

    Masks and predicted IoUs equal those of segment-anything's `SamPredictor` with
    `multimask_output=False`, except for pixels whose logit is within float32 rounding of the
    threshold. On a CPU the results of a slice do not depend on the other slices of its batch.
    """

    prompt_kinds = frozenset({"points", "negative", "box"})

    def __init__(
        self,
        sam: Sam,
        device: torch.device,
        precision: str = "float32",
        identity: dict | None = None,
    ) -> None:
        """Move the model to the device; it must not be used elsewhere afterwards.

        precision: of the image encoder; the decoder is always float32.
        identity: see `registry.identify`.
        """
        be_repeatable()
        self.device = device
        self.identity = identity or {}
        self._sam = sam.to(device)
        self._encoder = Encoder(sam.image_encoder, getattr(torch, precision))
        self._resize = ResizeLongestSide(sam.image_encoder.img_size)
        # Batches are not faster on a CPU, and they would change the last digits of the results.
        self._one_by_one = device.type == "cpu"

    def prepare(self, image_rgb: np.ndarray) -> torch.Tensor:
        """Resize a slice, (rows, columns, 3) uint8, to SAM's longest side; (3, rows, columns)."""
        resized = torch.as_tensor(self._resize.apply_image(image_rgb)).permute(2, 0, 1).contiguous()
        return resized.pin_memory() if self.device.type == "cuda" else resized

    @torch.inference_mode()
    def encode(self, pictures: Sequence[torch.Tensor]) -> tuple[torch.Tensor]:
        """Return the embeddings of slices as one tensor, (slices, channels, side, side) float32."""
        pictures = [picture.to(self.device, non_blocking=True) for picture in pictures]
        size = 1 if self._one_by_one else len(pictures)
        batches = torch.stack(pictures).split(size)
        return (torch.cat([self._encoder.encode(self._sam.preprocess(each)) for each in batches]),)

    @torch.inference_mode()
    def decode(
        self,
        embeddings: tuple[torch.Tensor],
        size_rc: tuple[int, int],
        prompts: Sequence[Sequence[Prompts]],
        mask_logits: torch.Tensor | None = None,
    ) -> Decoded:
        """Segment the prompted objects in slices of one size; see `base.Segmenter.decode`."""
        shape = len(prompts), len(prompts[0])
        side = 4 * embeddings[0].shape[-1]
        decoded = Decoded(
            torch.empty((*shape, *size_rc), dtype=torch.bool, device=self.device),
            torch.empty(shape, device=self.device),
            torch.empty((*shape, side, side), device=self.device),
        )
        input_size = self._resize.get_preprocess_shape(*size_rc, self._resize.target_length)
        # Prompts are not padded to the same number of points: padding changes SAM's results.
        groups = defaultdict(list)
        for place in np.ndindex(shape):
            prompt = prompts[place[0]][place[1]]
            kind = place if self._one_by_one else (len(prompt.labels), prompt.box_rc is None)
            groups[kind].append((place, prompt))
        for group in groups.values():
            places, of_group = zip(*group, strict=True)
            slices, numbers = torch.tensor(places, device=self.device).T
            # All prompts of a group have the same number of points, and all or none have a box.
            points_xy = np.stack([prompt.points_xy for prompt in of_group])
            boxes_xyxy = None
            if of_group[0].box_rc is not None:
                boxes_xyxy = np.stack([prompt.box_xyxy for prompt in of_group])
                boxes_xyxy = self._to_device(self._resize.apply_boxes(boxes_xyxy, size_rc))
            logits, predicted_ious = decode_prompts(
                self._sam,
                embeddings[0][slices],
                self._to_device(self._resize.apply_coords(points_xy, size_rc)),
                self._to_device(np.stack([prompt.labels for prompt in of_group])),
                boxes_xyxy,
                None if mask_logits is None else mask_logits[slices, numbers],
            )
            upscaled = self._sam.postprocess_masks(logits[:, None], input_size, size_rc)
            decoded.masks[slices, numbers] = upscaled[:, 0] > self._sam.mask_threshold
            decoded.predicted_ious[slices, numbers] = predicted_ious
            decoded.mask_logits[slices, numbers] = logits
        return decoded

    def _to_device(self, numbers: np.ndarray) -> torch.Tensor:
        """Cast to float32 before moving: Apple's GPUs (mps) have no float64."""
        return torch.as_tensor(numbers.astype(np.float32)).to(self.device)

    def batch_size(self) -> int:
        """Return how many slices to encode at once: the most that helps and fits in memory."""
        if self.device.type == "cuda":
            free_bytes, _ = torch.cuda.mem_get_info(self.device)
            return int(np.clip(free_bytes // GPU_BYTES_PER_SLICE, 1, MAX_GPU_SLICES))
        return 1


def decode_prompts(
    sam: Sam,
    embeddings: torch.Tensor,
    points_xy: torch.Tensor,
    labels: torch.Tensor,
    boxes_xyxy: torch.Tensor | None,
    mask_logits: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run SAM's prompt encoder and mask decoder on N prompts, each with its own embedding.

    Gradients are computed unless the caller turns them off. All tensors are on one device.

    embeddings: (N, channels, side, side) float32.
    points_xy: (N, points, 2) float32, in pixels of the model's input; `points` may be 0 with a box.
    labels: (N, points), 1 positive, 0 negative, -1 for padding.
    boxes_xyxy: (N, 4) float32, in pixels of the model's input, or None.
    mask_logits: (N, 4 side, 4 side) float32, as an earlier call returned them, or None.

    Returns mask logits, (N, 4 side, 4 side) float32, and predicted IoUs, (N,) float32.
    """
    sparse, dense = sam.prompt_encoder(
        points=(points_xy, labels) if labels.shape[1] else None,
        boxes=boxes_xyxy,
        masks=None if mask_logits is None else mask_logits[:, None],
    )
    # The decoder takes one image for all prompts and adds the dense embedding of each prompt to it.
    # With zeros for the image, the dense embeddings can carry a different image for each prompt.
    logits, predicted_ious = sam.mask_decoder(
        image_embeddings=torch.zeros_like(embeddings[:1]),
        image_pe=sam.prompt_encoder.get_dense_pe(),
        sparse_prompt_embeddings=sparse,
        dense_prompt_embeddings=embeddings + dense,
        multimask_output=False,
    )
    return logits[:, 0], predicted_ious[:, 0]
