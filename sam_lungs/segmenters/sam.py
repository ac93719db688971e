"""Segment Anything behind the interface of `segmenters.base`.

Kirillov et al., Segment Anything, ICCV 2023, arXiv:2304.02643.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from segment_anything.modeling import Sam
from segment_anything.utils.transforms import ResizeLongestSide

from sam_lungs.prompts.protocols import Prompts
from sam_lungs.segmenters.grouped import GroupedSegmenter
from sam_lungs.segmenters.sam_decoder import SliceDecoder
from sam_lungs.segmenters.sam_encoder import Encoder


class SamSegmenter(GroupedSegmenter):
    """SAM on one device.

    Masks and predicted IoUs equal those of segment-anything's `SamPredictor` with
    `multimask_output=False`, except for pixels whose logit is within float32 rounding of the
    threshold. An embedding is one tensor, (slices, channels, side, side).
    """

    prompt_kinds = frozenset({"points", "negative", "box"})

    def __init__(
        self,
        sam: Sam,
        device: torch.device,
        precision: str = "float32",
        identity: dict | None = None,
        mask_choice: str = "model",
    ) -> None:
        """Move the model to the device; it must not be used elsewhere afterwards.

        precision: of the image encoder; the decoder is always float32.
        identity: see `registry.identify`.
        mask_choice: one of `base.MASK_CHOICES`; for SAM, `model` is `token0`.
        """
        super().__init__(device, precision, identity, mask_choice)
        self._sam = sam.to(device)
        self._encoder = Encoder(sam.image_encoder, self._dtype)
        self._resize = ResizeLongestSide(sam.image_encoder.img_size)

    def prepare(self, image_rgb: np.ndarray, in_window: np.ndarray | None = None) -> torch.Tensor:
        """Resize a slice, (rows, columns, 3) uint8, to SAM's longest side; (3, rows, columns)."""
        resized = torch.as_tensor(self._resize.apply_image(image_rgb))
        return self._pin(resized.permute(2, 0, 1).contiguous())

    def _encode(self, pictures: torch.Tensor) -> tuple[torch.Tensor]:
        return (self._encoder.encode(self._sam.preprocess(pictures)),)

    def _predict(
        self, embeddings: tuple[torch.Tensor], *arguments: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return self._run(partial(decode_prompts, self._sam, embeddings[0]), *arguments)

    def _slice_predictor(
        self, embeddings: tuple[torch.Tensor]
    ) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
        if not self._one_by_one:
            return super()._slice_predictor(embeddings)
        decoder = SliceDecoder(self._sam, embeddings[0][0])
        return lambda _, *arguments: self._run(decoder.decode, *arguments)

    def _run(
        self,
        decode: Callable[..., tuple[torch.Tensor, torch.Tensor]],
        size_rc: tuple[int, int],
        prompts: list[Prompts],
        mask_logits: torch.Tensor | None,
        multimask: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run `decode_prompts` with its first arguments, or `SliceDecoder.decode`."""
        points_xy = np.stack([prompt.points_xy for prompt in prompts])
        boxes_xyxy = None
        if prompts[0].box_rc is not None:
            boxes_xyxy = np.stack([prompt.box_xyxy for prompt in prompts])
            boxes_xyxy = self._to_device(self._resize.apply_boxes(boxes_xyxy, size_rc))
        logits, predicted_ious = decode(
            self._to_device(self._resize.apply_coords(points_xy, size_rc)),
            self._to_device(np.stack([prompt.labels for prompt in prompts])),
            boxes_xyxy,
            mask_logits,
            multimask,
        )
        if multimask:
            return logits, predicted_ious
        return logits[:, None], predicted_ious[:, None]

    def _masks(self, logits: torch.Tensor, size_rc: tuple[int, int]) -> torch.Tensor:
        input_size = self._resize.get_preprocess_shape(*size_rc, self._resize.target_length)
        upscaled = self._sam.postprocess_masks(logits, input_size, size_rc)
        return upscaled > self._sam.mask_threshold


def decode_prompts(
    sam: Sam,
    embeddings: torch.Tensor,
    points_xy: torch.Tensor,
    labels: torch.Tensor,
    boxes_xyxy: torch.Tensor | None,
    mask_logits: torch.Tensor | None = None,
    multimask: bool = False,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Run SAM's prompt encoder and mask decoder on N prompts, each with its own embedding.

    Gradients are computed unless the caller turns them off. All tensors are on one device.

    embeddings: (N, channels, side, side) float32.
    points_xy: (N, points, 2) float32, in pixels of the model's input; `points` may be 0 with a box.
    labels: (N, points), 1 positive, 0 negative, -1 for padding.
    boxes_xyxy: (N, 4) float32, in pixels of the model's input, or None.
    mask_logits: (N, 4 side, 4 side) float32, as an earlier call returned them, or None.

    multimask: return the masks of tokens 1 to 3 instead of the mask of token 0.

    Returns mask logits, (N, 4 side, 4 side) float32, and predicted IoUs, (N,) float32; with
    `multimask` (N, 3, 4 side, 4 side) and (N, 3).
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
        multimask_output=multimask,
    )
    return (logits, predicted_ious) if multimask else (logits[:, 0], predicted_ious[:, 0])
