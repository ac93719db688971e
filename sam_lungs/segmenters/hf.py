"""Models of transformers behind the interface of `segmenters.base`, by the rules of `families`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.nn import functional as F

from sam_lungs.prompts.protocols import Prompts
from sam_lungs.segmenters.families import FAMILIES
from sam_lungs.segmenters.grouped import GroupedSegmenter
from sam_lungs.segmenters.preprocessing import RESIZES, to_mask

if TYPE_CHECKING:
    from transformers.utils import ModelOutput

LARGEST_LOGIT = 32.0  # of masks that SAM 2 and later models get to refine


class One:
    """One tensor, (slices, channels, side, side): SAM."""

    @staticmethod
    def keep(model: torch.nn.Module, encoded: ModelOutput) -> tuple[torch.Tensor, ...]:
        """Return the tensors to keep of the image encoder's output, float32."""
        return (encoded.last_hidden_state.float(),)

    @staticmethod
    def as_inputs(embeddings: tuple[torch.Tensor, ...]) -> dict:
        """Return the tensors as arguments of the model."""
        return {"image_embeddings": embeddings[0]}


class WithIntermediate:
    """Also the output of the first block with global attention, (slices, side, side, width).

    SAM-HQ's decoder reads only the first of the outputs that transformers returns. Without it, the
    model returns other masks and raises nothing.
    """

    @staticmethod
    def keep(model: torch.nn.Module, encoded: ModelOutput) -> tuple[torch.Tensor, ...]:
        return encoded.last_hidden_state.float(), encoded.intermediate_embeddings[0].float()

    @staticmethod
    def as_inputs(embeddings: tuple[torch.Tensor, ...]) -> dict:
        image, intermediate = embeddings
        return {"image_embeddings": image, "intermediate_embeddings": [intermediate]}


class Pyramid:
    """Three tensors, (slices, channels, side, side), the sides 4, 2 and 1 times the smallest.

    SAM 3's encoder returns a fourth, which its authors discard. transformers 5.24 adds the
    embedding for "no memory" to that one, the authors to the third.
    """

    @staticmethod
    def keep(model: torch.nn.Module, encoded: ModelOutput) -> tuple[torch.Tensor, ...]:
        large, middle, small = (level.float() for level in encoded.fpn_hidden_states[:3])
        decoder = model.mask_decoder
        no_memory = model.no_memory_embedding.reshape(-1, 1, 1)
        return decoder.conv_s0(large), decoder.conv_s1(middle), small + no_memory

    @staticmethod
    def as_inputs(embeddings: tuple[torch.Tensor, ...]) -> dict:
        return {"image_embeddings": list(embeddings)}


EMBEDDINGS = {"one": One, "with_intermediate": WithIntermediate, "pyramid": Pyramid}


class TransformersSegmenter(GroupedSegmenter):
    """A model of transformers on one device.

    An embedding has the tensors that the mask decoder needs, see `EMBEDDINGS`.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        device: torch.device,
        precision: str,
        identity: dict,
        mask_choice: str = "model",
    ) -> None:
        """Move the model to the device; it must not be used elsewhere afterwards.

        model: of the class that its family names, in evaluation mode.
        precision: of the image encoder, by autocast; everything else is always float32.
        identity: see `base.Segmenter`; `family` chooses the rules, see `families.FAMILIES`.
        mask_choice: one of `base.MASK_CHOICES`.
        """
        super().__init__(device, precision, identity, mask_choice)
        self._family = FAMILIES[self.identity["family"]]
        self.prompt_kinds = self._family.prompt_kinds
        self._embedding = EMBEDDINGS[self._family.embedding]
        self._model = model.to(device)
        self._resize = RESIZES[self._family.resize](model.config.prompt_encoder_config.image_size)
        for name, eps in self._family.norm_eps.items():
            for module in model.get_submodule(name).modules():
                if isinstance(module, torch.nn.LayerNorm):
                    module.eps = eps
        if self._family.model_choice == "stability" and mask_choice == "token0":
            model.mask_decoder.dynamic_multimask_via_stability = False

    def prepare(self, image_rgb: np.ndarray, in_window: np.ndarray | None = None) -> torch.Tensor:
        """Return the model's input, (3, side, side) float32.

        image_rgb: a slice, (rows, columns, 3) uint8.
        """
        mean, std = (
            torch.tensor(channels)[:, None, None]
            for channels in (self._family.mean, self._family.std)
        )
        normalized = (self._resize.resize(image_rgb) - mean) / std
        below, right = (self._resize.side - length for length in normalized.shape[1:])
        return self._pin(F.pad(normalized, (0, right, 0, below)))

    def _encode(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        lower = self._dtype != torch.float32
        with torch.autocast(self.device.type, self._dtype, enabled=lower):
            encoded = self._model.vision_encoder(pictures)
        return self._embedding.keep(self._model, encoded)

    def _predict(
        self,
        embeddings: tuple[torch.Tensor, ...],
        size_rc: tuple[int, int],
        prompts: list[Prompts],
        mask_logits: torch.Tensor | None,
        multimask: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = self._embedding.as_inputs(embeddings)
        if len(prompts[0].labels):
            points_xy = np.stack([prompt.points_xy for prompt in prompts])[:, None]
            points_xy = self._resize.coordinates(points_xy, size_rc)
            labels = np.stack([prompt.labels for prompt in prompts])[:, None]
            inputs["input_points"] = self._to_device(points_xy)
            inputs["input_labels"] = torch.from_numpy(labels).to(self.device)
        if prompts[0].box_rc is not None:
            corners_xy = np.stack([prompt.box_xyxy for prompt in prompts]).reshape(-1, 2, 2)
            corners_xy = self._resize.coordinates(corners_xy, size_rc)
            inputs["input_boxes"] = self._to_device(corners_xy.reshape(-1, 1, 4))
        if mask_logits is not None:
            if self._family.model_choice == "stability":
                mask_logits = mask_logits.clamp(-LARGEST_LOGIT, LARGEST_LOGIT)
            inputs["input_masks"] = mask_logits[:, None]
        output = self._model(**inputs, multimask_output=multimask)
        return output.pred_masks[:, 0], output.iou_scores[:, 0]

    def _masks(self, logits: torch.Tensor, size_rc: tuple[int, int]) -> torch.Tensor:
        return to_mask(self._family.mask_rule, logits, size_rc, self._resize)
