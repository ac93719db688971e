"""A slice that is encoded once, and prompted many times."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from sam_lungs.prompts.protocols import PromptProtocol, Prompts
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.segmenters.base import Decoded, Segmenter
from sam_lungs.study.metrics import Overlap

if TYPE_CHECKING:  # importing torch takes seconds
    import torch

# Sets of prompts that are decoded at once. Their masks are in memory.
CHUNK = 32


class Target(NamedTuple):
    """What is prompted and measured together.

    name: of the object, or `all`. prompts: those of the protocol. reference: (rows, columns) bool.
    """

    name: str
    prompts: Prompts
    reference: np.ndarray


@dataclass(frozen=True, eq=False)
class ExploredSlice:
    """A slice with objects, its embedding, and the protocol of its prompts.

    case: the name of its case. masks: (rows, columns) of labels. names: of the object of each
    label of the case. objects: `together` or `apart`. spacing_mm: of rows and columns, None if not
    known. embeddings: as `Segmenter.encode` returns them for one slice.
    """

    case: str
    index: int
    masks: np.ndarray
    names: dict[int, str]
    protocol: PromptProtocol
    objects: str
    spacing_mm: tuple[float, float] | None
    segmenter: Segmenter
    embeddings: tuple[torch.Tensor, ...]

    @cached_property
    def together(self) -> Target:
        """All labels, prompted as one."""
        return Target("all", make_prompts(self.masks, self.protocol), self.masks != 0)

    @cached_property
    def apart(self) -> list[Target]:
        """Each label, prompted as if there were no others; in the order of the labels."""
        targets = []
        for label in np.unique(self.masks[self.masks != 0]).tolist():
            reference = self.masks == label
            prompts = make_prompts(np.where(reference, self.masks, 0), self.protocol)
            targets.append(Target(self.names[label], prompts, reference))
        return targets

    @property
    def targets(self) -> list[Target]:
        """What is prompted by the option `objects`; the masks of several are to be united."""
        return [self.together] if self.objects == "together" else self.apart

    def decode(
        self, prompts: Sequence[Prompts], mask_logits: torch.Tensor | None = None
    ) -> Decoded:
        """Segment prompts, see `Segmenter.decode_slice`."""
        size_rc = self.masks.shape
        return self.segmenter.decode_slice(self.embeddings, size_rc, prompts, mask_logits)

    def evaluate(
        self, prompts: Sequence[Sequence[Prompts]], *references: np.ndarray
    ) -> list[list[Overlap]]:
        """Return the overlaps of predicted masks with each reference: one list per reference.

        prompts: the masks of the prompts in each item are united. references: (rows, columns) bool.

        Only areas are kept, not masks. On a GPU every chunk is filled up to the same size, because
        the last digits depend on it.
        """
        import torch

        device = self.segmenter.device
        on_device = [torch.from_numpy(reference).to(device) for reference in references]
        areas = []
        for start in range(0, len(prompts), CHUNK):
            chunk = list(prompts[start : start + CHUNK])
            count = len(chunk)
            if device.type != "cpu":
                chunk += [chunk[-1]] * (CHUNK - count)
            masks = self.decode([each for united in chunk for each in united]).masks
            if len(masks) > len(chunk):
                sizes = [len(united) for united in chunk]
                masks = torch.stack([united.any(0) for united in masks.split(sizes)])
            shared = [(masks & reference).sum((-2, -1)) for reference in on_device]
            areas.append(torch.stack([masks.sum((-2, -1)), *shared], dim=1)[:count])
        areas = torch.cat(areas).tolist()
        sizes = [int(np.count_nonzero(reference)) for reference in references]
        return [
            [Overlap(predicted, size, shared[number]) for predicted, *shared in areas]
            for number, size in enumerate(sizes)
        ]


def columns_of(overlaps: Sequence[Overlap]) -> dict[str, list[float]]:
    """Return the last two columns of every table of values."""
    return {
        "jaccard": [each.jaccard for each in overlaps],
        "dice": [each.dice for each in overlaps],
    }
