"""The interface of all segmenters: RGB slice and prompts -> mask and predicted IoU."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

from sam_lungs.prompts.protocols import Prompts
from sam_lungs.utils.errors import InputError

if TYPE_CHECKING:  # importing torch takes seconds
    import torch

MODELS = ("vit_b", "vit_l", "vit_h", "compact")
BASELINES = ("box", "threshold")  # without weights
DEVICES = ("auto", "cpu", "cuda", "mps")
PRECISIONS = ("float32", "bfloat16", "float16")  # of the image encoder
EMBEDDINGS_PRECISIONS = ("float32", "float16")  # of embeddings on disk
PROMPT_KINDS = ("points", "negative", "box")
# Which mask of a prompt is used: `model` is the choice of the model's authors, see `families`.
MASK_CHOICES = ("model", "token0", "best_score")
# How CT is windowed: the same for all families, or as a family's authors do, see `families`.
PREPROCESSINGS = ("common", "native")


class NotFiniteError(InputError):
    """A model computed NaN or infinity. Nothing of the slice may be recorded."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """mask: (rows, columns) bool. predicted_iou: the model's estimate of the mask's Jaccard index,
    from 0 to 1; NaN from a baseline.
    """

    mask: np.ndarray
    predicted_iou: float


class Decoded(NamedTuple):
    """Masks of several slices, each with the same number of prompts; tensors on the device.

    When `decode` is called with `multimask`, each prompt has three masks, and all shapes have an
    additional third dimension for them.

    masks: (slices, prompts, rows, columns) bool.
    predicted_ious: (slices, prompts) float32, the model's estimate of each mask's Jaccard index;
        NaN from a baseline.
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
        name -> SHA-256), `preprocessing`, `mask_choice` (str), `packages` (name -> version) and
        `prompt_kinds` (list). Models of transformers also have `mask_rule`, and they and baselines
        `note` (str), which says what a reader of the results must know.
    prompt_kinds: the prompts that the model accepts, of "points", "negative" and "box".
    """

    device: torch.device
    identity: dict
    prompt_kinds: frozenset[str]

    def prepare(self, image_rgb: np.ndarray, in_window: np.ndarray | None = None) -> torch.Tensor:
        """Return what `encode` takes of a slice; for a model, (3, rows, columns) of its input.

        image_rgb: (rows, columns, 3) uint8, stretched to the slice's own range.
        in_window: (rows, columns) float64, the place of each voxel in the window of CT: 0 at its
            lower end, 1 at its upper end, not clipped; None without a window. Models do not use it.

        May be called from any thread.
        """

    def encode(self, pictures: Sequence[torch.Tensor]) -> tuple[torch.Tensor, ...]:
        """Return the embedding of slices that `prepare` returned, all of one shape.

        Raises `NotFiniteError` when it has NaN or infinity.
        """

    def decode(
        self,
        embeddings: tuple[torch.Tensor, ...],
        size_rc: tuple[int, int],
        prompts: Sequence[Sequence[Prompts]],
        mask_logits: torch.Tensor | None = None,
        multimask: bool = False,
    ) -> Decoded:
        """Segment the prompted objects in slices of one size.

        embeddings: of the slices, on the device. size_rc: rows and columns of the slices.
        prompts: one sequence per slice, all of the same length.
        mask_logits: as in an earlier `Decoded` of the same shape, to refine its masks.
        multimask: return the three masks of each prompt instead of one.

        Raises `NotFiniteError` when a model predicts NaN or infinity.
        """

    def decode_slice(
        self,
        embeddings: tuple[torch.Tensor, ...],
        size_rc: tuple[int, int],
        prompts: Sequence[Prompts],
        mask_logits: torch.Tensor | None = None,
        multimask: bool = False,
    ) -> Decoded:
        """Segment many prompted objects in one slice; faster than `decode` where they share work.

        On a CPU the result of a prompt does not depend on the other prompts. On a GPU it does, in
        the last digits. Results equal those of `decode` up to float32 rounding.

        embeddings: of the slice, on the device. prompts: at least one; their masks are in memory at
        once. mask_logits: (prompts, h, w) float32, as in an earlier `Decoded` of this method.

        Returns tensors without the dimension of slices. Raises as `decode` does.
        """

    def batch_size(self) -> int:
        """Return how many slices to encode at once: the most that helps and fits in memory."""


def check_prompts(prompts: Prompts, accepted: frozenset[str], identity: dict) -> None:
    """Raise `InputError` when a model does not accept these prompts.

    accepted, identity: of the model, see `Segmenter`.
    """
    given = {
        "points": 1 in prompts.labels,
        "negative": 0 in prompts.labels,
        "box": prompts.box_rc is not None,
    }
    check_kinds({kind for kind in given if given[kind]}, accepted, identity.get("model"))


def check_kinds(given: Collection[str], accepted: Collection[str], model: object) -> None:
    """Raise `InputError` when a model does not accept these kinds of prompts."""
    if refused := [kind for kind in PROMPT_KINDS if kind in given and kind not in accepted]:
        raise InputError(
            f"{model}: accepts {' and '.join(sorted(accepted))} prompts only, not"
            f" {' and '.join(refused)}; use --prompts box_only"
        )


def group_prompts(
    prompts: Sequence[Sequence[Prompts]], one_by_one: bool
) -> Iterator[tuple[np.ndarray, list[Prompts]]]:
    """Yield groups of prompts that a model can take at once.

    All prompts of a group have the same number of points, and all or none have a box. Prompts are
    not padded to the same number of points, because padding changes the results of SAM.

    prompts: as for `Segmenter.decode`. one_by_one: make groups of one prompt.

    Yields the place of each prompt as (prompts, 2) int, (slice, prompt in the slice), and the
    prompts.
    """
    groups = defaultdict(list)
    for place in np.ndindex(len(prompts), len(prompts[0])):
        prompt = prompts[place[0]][place[1]]
        kind = place if one_by_one else (len(prompt.labels), prompt.box_rc is None)
        groups[kind].append((place, prompt))
    for group in groups.values():
        places, of_group = zip(*group, strict=True)
        yield np.array(places), list(of_group)


def segment(
    segmenter: Segmenter,
    image_rgb: np.ndarray,
    prompts: Prompts,
    in_window: np.ndarray | None = None,
) -> Prediction:
    """Segment the prompted object in one slice.

    image_rgb, in_window: as for `Segmenter.prepare`.
    """
    embeddings = segmenter.encode([segmenter.prepare(image_rgb, in_window)])
    decoded = segmenter.decode(embeddings, image_rgb.shape[:2], [[prompts]])
    return Prediction(decoded.masks[0, 0].cpu().numpy(), decoded.predicted_ious.item())
