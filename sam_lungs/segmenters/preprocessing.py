"""Slice -> a model's input, and its logits -> mask, by the rules that `families` names.

Each class has the code of one way to resize. Coordinates are resized in the same way.
"""

import cv2
import numpy as np
import torch
from scipy import ndimage
from segment_anything.utils.transforms import ResizeLongestSide
from torch import Tensor
from torch.nn import functional as F

MAX_HOLE_AREA = 256  # of SAM 3, in logits
FILLED_LOGIT = 10.0


class Padded:
    """`longest_side`: SAM resizes the longest side and pads with zeros below and on the right."""

    def __init__(self, side: int) -> None:
        """side: rows and columns of the model's input."""
        self.side = side
        self._resize = ResizeLongestSide(side)

    def resize(self, image_rgb: np.ndarray) -> Tensor:
        """Return a slice, (rows, columns, 3) uint8, as (3, rows, columns) float32."""
        return _channels_first(self._resize.apply_image(image_rgb)).float()

    def coordinates(self, xy: np.ndarray, size_rc: tuple[int, int]) -> np.ndarray:
        """Return points, (..., 2), (column, row), in pixels of the model's input."""
        return self._resize.apply_coords(xy, size_rc)

    def crop(self, logits: Tensor, size_rc: tuple[int, int]) -> Tensor:
        """Return the logits, (N, masks, h, w), of the slice without the padding."""
        rows, columns = self._resize.get_preprocess_shape(*size_rc, self.side)
        square = _interpolate(logits, (self.side, self.side))
        return square[..., :rows, :columns]


class Squashed:
    """`floats`: SAM 2 resizes both sides to the same length, as numbers from 0 to 1."""

    def __init__(self, side: int) -> None:
        """side: rows and columns of the model's input."""
        self.side = side

    def resize(self, image_rgb: np.ndarray) -> Tensor:
        """Return a slice, (rows, columns, 3) uint8, as (3, side, side) float32."""
        return self._squash(_channels_first(image_rgb).float() / 255)

    def coordinates(self, xy: np.ndarray, size_rc: tuple[int, int]) -> np.ndarray:
        """Return points, (..., 2), (column, row), in pixels of the model's input."""
        return xy.astype(np.float32) / np.float32(size_rc[::-1]) * np.float32(self.side)

    def _squash(self, pixels: Tensor) -> Tensor:
        size = (self.side, self.side)
        return F.interpolate(
            pixels[None], size, mode="bilinear", align_corners=False, antialias=True
        )[0]


class SquashedUint8(Squashed):
    """`uint8`: SAM 3 rounds the resized numbers to uint8, as torchvision does on a GPU."""

    def resize(self, image_rgb: np.ndarray) -> Tensor:
        return self._squash(_channels_first(image_rgb).float()).round() / 255


class SquashedBicubic(Squashed):
    """`bicubic`: MedSAM uses `skimage.transform.resize(order=3, anti_aliasing=True)`."""

    def resize(self, image_rgb: np.ndarray) -> Tensor:
        # The same calls as in scikit-image, so that the truncation to uint8 gives the same numbers.
        factors = np.divide(image_rgb.shape, (self.side, self.side, 3))
        pixels = image_rgb.astype(float)
        blurred = ndimage.gaussian_filter(pixels, np.maximum(0, (factors - 1) / 2), mode="mirror")
        zoomed = ndimage.zoom(blurred, 1 / factors, order=3, mode="mirror", grid_mode=True)
        squashed = zoomed.clip(pixels.min(), pixels.max()).astype(np.uint8)
        lowest, highest = squashed.min(), squashed.max()
        return _channels_first((squashed - lowest) / max(highest - lowest, 1e-8)).float()


RESIZES = {
    "longest_side": Padded,
    "floats": Squashed,
    "uint8": SquashedUint8,
    "bicubic": SquashedBicubic,
}


def to_mask(
    rule: str, logits: Tensor, size_rc: tuple[int, int], resize: Padded | Squashed
) -> Tensor:
    """Return the masks of logits, (N, masks, h, w), as (N, masks, rows, columns) bool.

    rule: one of `families.MASK_RULES`. size_rc: of the slice. resize: with which it was resized.
    """
    if rule == "sigmoid":
        return _interpolate(logits.sigmoid(), size_rc) > 0.5
    if rule == "crop":
        logits = resize.crop(logits, size_rc)
    elif rule == "fill_holes":
        logits = logits.where(~_holes(logits), FILLED_LOGIT)
    return _interpolate(logits, size_rc) > 0


def _holes(logits: Tensor) -> Tensor:
    """Return the regions of the background, 8-connected, of up to `MAX_HOLE_AREA` logits; bool."""
    holes = np.zeros(logits.shape, dtype=bool)
    background = (logits <= 0).byte().cpu().numpy()
    for place in np.ndindex(*logits.shape[:2]):
        _, regions, statistics, _ = cv2.connectedComponentsWithStats(background[place])
        is_hole = statistics[:, cv2.CC_STAT_AREA] <= MAX_HOLE_AREA
        is_hole[0] = False  # the foreground
        holes[place] = is_hole[regions]
    return torch.from_numpy(holes).to(logits.device)


def _interpolate(images: Tensor, size_rc: tuple[int, int]) -> Tensor:
    return F.interpolate(images, size_rc, mode="bilinear", align_corners=False)


def _channels_first(image: np.ndarray) -> Tensor:
    """Return (rows, columns, 3) as (3, rows, columns), contiguous in memory."""
    return torch.tensor(image.transpose(2, 0, 1))
