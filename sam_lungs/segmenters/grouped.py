"""What segmenters share: slices are encoded in batches, and prompts are decoded in groups."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np
import torch

from sam_lungs.prompts.protocols import Prompts
from sam_lungs.segmenters.base import Decoded, NotFiniteError, check_prompts, group_prompts
from sam_lungs.segmenters.devices import be_repeatable
from sam_lungs.segmenters.finite import all_finite

GPU_BYTES_PER_SLICE = 2_000_000_000  # of ViT-H, rounded up
MAX_GPU_SLICES = 16  # larger batches are not faster


class GroupedSegmenter(ABC):
    """A segmenter without `prepare` and without its model; see `base.Segmenter`.

    On a CPU slices and prompts are computed one by one, so that the results of a slice do not
    depend on the other slices of its batch. Subclasses define `prepare`, `_encode`, `_predict` and
    `_masks`.
    """

    prompt_kinds: frozenset[str]

    def __init__(
        self, device: torch.device, precision: str, identity: dict | None, mask_choice: str
    ) -> None:
        """precision, mask_choice: one of `base.PRECISIONS` and of `base.MASK_CHOICES`."""
        be_repeatable()
        self.device = device
        self.identity = identity or {}
        self._dtype = getattr(torch, precision)
        self._mask_choice = mask_choice
        # Batches are not faster on a CPU, and they would change the last digits of the results.
        self._one_by_one = device.type == "cpu"

    @torch.inference_mode()
    def encode(self, pictures: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return the embeddings of slices that `prepare` returned; float32, on the device.

        Raises `NotFiniteError` as `base.Segmenter.encode` does.
        """
        pictures = [picture.to(self.device, non_blocking=True) for picture in pictures]
        batches = torch.stack(pictures).split(1 if self._one_by_one else len(pictures))
        encoded = [self._encode(batch) for batch in batches]
        embeddings = tuple(torch.cat(tensors) for tensors in zip(*encoded, strict=True))
        if not all_finite(embeddings):
            if self._dtype == torch.float16:
                raise self._not_finite(
                    "in --precision float16", "use --precision bfloat16 or float32"
                )
            raise self._not_finite_weights()
        return embeddings

    @torch.inference_mode()
    def decode(
        self,
        embeddings: tuple[torch.Tensor, ...],
        size_rc: tuple[int, int],
        prompts: Sequence[Sequence[Prompts]],
        mask_logits: torch.Tensor | None = None,
        multimask: bool = False,
    ) -> Decoded:
        """Segment the prompted objects in slices of one size; see `base.Segmenter.decode`."""
        predict = self._predictor(embeddings)
        return self._decode(predict, size_rc, prompts, mask_logits, multimask)

    @torch.inference_mode()
    def decode_slice(
        self,
        embeddings: tuple[torch.Tensor, ...],
        size_rc: tuple[int, int],
        prompts: Sequence[Prompts],
        mask_logits: torch.Tensor | None = None,
        multimask: bool = False,
    ) -> Decoded:
        """Segment many prompted objects in one slice; see `base.Segmenter.decode_slice`."""
        predict = self._slice_predictor(embeddings)
        logits = None if mask_logits is None else mask_logits[None]
        decoded = self._decode(predict, size_rc, [prompts], logits, multimask)
        return Decoded(*(tensor[0] for tensor in decoded))

    def _decode(
        self,
        predict: Callable[..., tuple[torch.Tensor, torch.Tensor]],
        size_rc: tuple[int, int],
        prompts: Sequence[Sequence[Prompts]],
        mask_logits: torch.Tensor | None,
        multimask: bool,
    ) -> Decoded:
        """Decode prompts in groups. predict: of `_predictor` or `_slice_predictor`.

        Raises `NotFiniteError` as `base.Segmenter.decode` does.
        """
        shape = len(prompts), len(prompts[0])
        best_of_three = self._mask_choice == "best_score" and not multimask
        decoded = None
        for places, group in group_prompts(prompts, self._one_by_one):
            check_prompts(group[0], self.prompt_kinds, self.identity)
            slices, numbers = torch.from_numpy(places).to(self.device).T
            logits, predicted_ious = predict(
                slices,
                size_rc,
                group,
                None if mask_logits is None else mask_logits[slices, numbers],
                multimask or best_of_three,
            )
            if best_of_three:
                best = predicted_ious.argmax(1, keepdim=True)
                predicted_ious = predicted_ious.take_along_dim(best, 1)
                logits = logits.take_along_dim(best[..., None, None], 1)
            parts = self._masks(logits, size_rc), predicted_ious, logits
            if decoded is None:
                decoded = Decoded(*(part.new_empty((*shape, *part.shape[1:])) for part in parts))
            for whole, part in zip(decoded, parts, strict=True):
                whole[slices, numbers] = part
        if not all_finite(decoded[1:]):
            raise self._not_finite_weights()
        return decoded if multimask else Decoded(*(tensor[:, :, 0] for tensor in decoded))

    def _not_finite_weights(self) -> NotFiniteError:
        return self._not_finite(
            "from its weights",
            "they are damaged, or their training failed: use others, such as the published ones",
        )

    def _not_finite(self, how: str, remedy: str) -> NotFiniteError:
        return NotFiniteError(
            f"{self.identity.get('model')}: computed values that are not finite (NaN or infinite)"
            f" {how}; {remedy}"
        )

    def _predictor(
        self, embeddings: tuple[torch.Tensor, ...]
    ) -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
        """Return `_predict` for these embeddings, with the slice of each prompt first."""
        return lambda slices, *rest: self._predict(
            tuple(tensor[slices] for tensor in embeddings), *rest
        )

    # Replaced where the prompts of a slice can share work.
    _slice_predictor = _predictor

    def batch_size(self) -> int:
        """Return how many slices to encode at once: the most that helps and fits in memory."""
        if self.device.type == "cuda":
            free_bytes, _ = torch.cuda.mem_get_info(self.device)
            return int(np.clip(free_bytes // GPU_BYTES_PER_SLICE, 1, MAX_GPU_SLICES))
        return 1

    def _pin(self, picture: torch.Tensor) -> torch.Tensor:
        return picture.pin_memory() if self.device.type == "cuda" else picture

    def _to_device(self, numbers: np.ndarray) -> torch.Tensor:
        """Cast to float32 before moving: Apple's GPUs (mps) have no float64."""
        return torch.as_tensor(numbers.astype(np.float32)).to(self.device)

    @abstractmethod
    def _encode(self, pictures: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Return the embeddings of a batch of pictures, float32."""

    @abstractmethod
    def _predict(
        self,
        embeddings: tuple[torch.Tensor, ...],
        size_rc: tuple[int, int],
        prompts: list[Prompts],
        mask_logits: torch.Tensor | None,
        multimask: bool,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Run the mask decoder on N prompts of one group, each with its own embedding.

        mask_logits: (N, h, w). Returns mask logits, (N, masks, h, w), and predicted IoUs,
        (N, masks), where there are three masks with `multimask` and otherwise one; both float32.
        """

    @abstractmethod
    def _masks(self, logits: torch.Tensor, size_rc: tuple[int, int]) -> torch.Tensor:
        """Return the masks of logits, (N, masks, h, w), as (N, masks, rows, columns) bool."""
