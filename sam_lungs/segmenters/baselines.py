"""Baselines without weights, behind the interface of `segmenters.base`.

They get the same prompts as models. Negative points have no effect.
"""

from collections.abc import Sequence

import cv2
import numpy as np
import torch
from scipy import ndimage

from sam_lungs.prompts.protocols import Prompts
from sam_lungs.segmenters.base import PROMPT_KINDS, Decoded
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.provenance import versions_of

# The place of -400 HU in the lung window, -1400 to 100 HU, as `in_window` of `Segmenter.prepare`.
THRESHOLD = (-400 + 1400) / 1500
NEEDS_BOX = (
    "box: needs a box to fill; leave --no_box out, or give --prompts with a box, such as paper"
)


class Box:
    """`box`: the prompt's box, filled.

    An embedding is one tensor without elements, because the slice has no effect.
    """

    device = torch.device("cpu")
    prompt_kinds = frozenset(PROMPT_KINDS)
    preprocessing = "none; the slice has no effect"
    mask_choice = "the box, filled"
    note = "A baseline without weights. Points have no effect. It has no predicted IoU."

    def __init__(self, identity: dict) -> None:
        """identity: see `identify`."""
        self.identity = identity

    def prepare(self, image_rgb: np.ndarray, in_window: np.ndarray | None = None) -> torch.Tensor:
        return torch.zeros(0)

    def encode(self, pictures: Sequence[torch.Tensor]) -> tuple[torch.Tensor]:
        return (torch.stack(list(pictures)),)

    def decode(
        self,
        embeddings: tuple[torch.Tensor],
        size_rc: tuple[int, int],
        prompts: Sequence[Sequence[Prompts]],
        mask_logits: torch.Tensor | None = None,
        multimask: bool = False,
    ) -> Decoded:
        """Segment as `base.Segmenter.decode` does; predicted IoUs are NaN, and logits 1 and -1.

        mask_logits have no effect, because the masks do not depend on earlier ones.

        Raises `InputError` with `multimask`.
        """
        if multimask:
            raise InputError(f"{self.identity['model']}: predicts one mask per prompt, not three")
        masks = [
            [self._mask(picture, size_rc, prompt) for prompt in of_slice]
            for picture, of_slice in zip(embeddings[0].numpy(), prompts, strict=True)
        ]
        masks = torch.from_numpy(np.array(masks))
        return Decoded(masks, torch.full(masks.shape[:2], torch.nan), masks * 2.0 - 1)

    def decode_slice(
        self,
        embeddings: tuple[torch.Tensor],
        size_rc: tuple[int, int],
        prompts: Sequence[Prompts],
        mask_logits: torch.Tensor | None = None,
        multimask: bool = False,
    ) -> Decoded:
        """Segment as `base.Segmenter.decode_slice` does; see `decode`."""
        decoded = self.decode(embeddings, size_rc, [prompts], mask_logits, multimask)
        return Decoded(*(tensor[0] for tensor in decoded))

    def batch_size(self) -> int:
        return 1

    def _mask(self, picture: np.ndarray, size_rc: tuple[int, int], prompts: Prompts) -> np.ndarray:
        """Return the mask of one prompt, (rows, columns) bool."""
        if prompts.box_rc is None:
            raise InputError(NEEDS_BOX)
        mask = np.zeros(size_rc, bool)
        mask[_inside(prompts)] = True
        return mask


class Threshold(Box):
    """`threshold`: the dark regions in the box that hold a positive point.

    Regions are 4-connected components of the dark pixels in the box, or in the slice where there is
    no box. Without positive points all of them are used. With a window, voxels below `THRESHOLD`
    are dark. Without one, grey values up to Otsu's threshold of those in the box are (Otsu 1979,
    doi 10.1109/TSMC.1979.4310076).

    An embedding is one tensor, (slices, rows, columns): bool, whether a voxel is dark, or without a
    window uint8, the grey values.
    """

    preprocessing = (
        "voxels below -400 HU in the window -1400 to 100 HU, below the same place in another one;"
        " without a window, Otsu's threshold of the 8-bit slice in the box"
    )
    mask_choice = "4-connected regions with a positive point, without positive points all"
    note = "A baseline without weights. Negative points have no effect. It has no predicted IoU."

    def prepare(self, image_rgb: np.ndarray, in_window: np.ndarray | None = None) -> torch.Tensor:
        dark_or_grey = image_rgb[:, :, 0] if in_window is None else in_window < THRESHOLD
        return torch.from_numpy(dark_or_grey.copy())

    def _mask(self, picture: np.ndarray, size_rc: tuple[int, int], prompts: Prompts) -> np.ndarray:
        inside = _inside(prompts)
        dark = np.zeros(size_rc, bool)
        dark[inside] = picture[inside] if picture.dtype == bool else _below_otsu(picture[inside])
        positive_rc = prompts.points_rc[prompts.labels == 1]
        if not len(positive_rc):
            return dark
        regions, _ = ndimage.label(dark)
        held = regions[tuple(positive_rc.T)]
        return np.isin(regions, held[held != 0])


BASELINES = {"box": Box, "threshold": Threshold}


def identify(model: str) -> dict:
    """Return the identity of a baseline, see `registry.identify`. model: of `BASELINES`."""
    baseline = BASELINES[model]
    return {
        "model": model,
        "family": "baseline",
        "preprocessing": baseline.preprocessing,
        "mask_choice": baseline.mask_choice,
        "prompt_kinds": list(PROMPT_KINDS),
        "note": baseline.note,
        "packages": versions_of(("numpy", "scipy", "opencv-python-headless")),
        "weights": {},
        "provenance": "none",
        "licence": "Apache-2.0",
        "size_bytes": 0,
    }


def _inside(prompts: Prompts) -> tuple[slice, slice]:
    """Return the rows and columns of the box, all of them without a box."""
    if prompts.box_rc is None:
        return slice(None), slice(None)
    top, left, bottom, right = prompts.box_rc
    return slice(top, bottom), slice(left, right)


def _below_otsu(grey: np.ndarray) -> np.ndarray:
    """Return which grey values, uint8, are not above Otsu's threshold; none if all are equal."""
    threshold, _ = cv2.threshold(grey, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)
    return (grey <= threshold) & (grey < grey.max())
