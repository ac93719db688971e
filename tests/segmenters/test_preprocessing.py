"""The rules of each family against references written from the authors' descriptions."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage
from torchvision.transforms import Compose, Normalize, Resize, ToTensor

from sam_lungs.segmenters.preprocessing import RESIZES, to_mask

SIDE = 64
SHAPES = [(40, 56), (100, 37), (64, 64), (130, 200)]
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]  # of ImageNet


def noisy_slice(rows: int, columns: int) -> np.ndarray:
    """A slice with smooth and sharp parts, and with 0 and 255."""
    rng = np.random.default_rng([rows, columns])
    image = ndimage.gaussian_filter(rng.normal(size=(rows, columns, 3)), (3, 3, 0))
    image = 127 + 900 * image
    image[: rows // 3, : columns // 3] = rng.integers(0, 256, (rows // 3, columns // 3, 3))
    return image.clip(0, 255).astype(np.uint8)


def linear_weights(size: int, resized: int, antialias: bool) -> np.ndarray:
    """Bilinear interpolation along one axis as a matrix, (resized, size), between pixel centres."""
    scale = size / resized
    width = max(scale, 1) if antialias else 1
    centers = (np.arange(resized) + 0.5) * scale
    if not antialias:  # the nearest pixels stand for those beyond the border
        centers = centers.clip(0.5, size - 0.5)
    weights = 1 - abs(np.arange(size) + 0.5 - centers[:, None]) / width
    weights = weights.clip(0, None)
    return weights / weights.sum(1, keepdims=True)


def resize_linear(images: np.ndarray, size_rc: tuple[int, int], antialias: bool) -> np.ndarray:
    """images: (..., rows, columns)."""
    down, across = (
        linear_weights(old, new, antialias)
        for old, new in zip(images.shape[-2:], size_rc, strict=True)
    )
    return down @ images @ across.T


def cubic_spline_weights(size: int, resized: int) -> np.ndarray:
    """Interpolation by a cubic B-spline, mirrored at the first and last pixel, as a matrix."""

    def b_spline(distance: np.ndarray) -> np.ndarray:
        t = abs(distance)
        near = 2 / 3 - t**2 + t**3 / 2
        far = (2 - t.clip(None, 2)) ** 3 / 6
        return np.where(t < 1, near, far)

    def basis(positions: np.ndarray) -> np.ndarray:
        """The splines of all pixels and of their mirror images, (positions, pixels)."""
        weights = np.zeros((len(positions), size))
        for knot in range(-5, size + 5):
            mirrored = abs(knot) if knot < size else 2 * (size - 1) - knot
            weights[:, mirrored] += b_spline(positions - knot)
        return weights

    positions = (np.arange(resized) + 0.5) * size / resized - 0.5
    return basis(positions) @ np.linalg.inv(basis(np.arange(size, dtype=float)))


@pytest.mark.parametrize("shape", SHAPES)
def test_sam_pads_after_resizing_the_longest_side(shape):
    image = noisy_slice(*shape)
    scale = SIDE / max(shape)
    rows, columns = (int(length * scale + 0.5) for length in shape)
    expected = np.array(Image.fromarray(image).resize((columns, rows), Image.Resampling.BILINEAR))
    resize = RESIZES["longest_side"](SIDE)
    np.testing.assert_array_equal(resize.resize(image).numpy().transpose(1, 2, 0), expected)
    points_xy = np.array([[0, 0], [shape[1], shape[0]], [7, 3]])
    expected_xy = points_xy * [columns / shape[1], rows / shape[0]]
    np.testing.assert_allclose(resize.coordinates(points_xy, shape), expected_xy, rtol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
def test_sam2_squashes_floats(shape):
    image = noisy_slice(*shape)
    squashed = RESIZES["floats"](SIDE).resize(image)
    expected = resize_linear(image.transpose(2, 0, 1) / 255, (SIDE, SIDE), antialias=True)
    np.testing.assert_allclose(squashed, expected, atol=1e-6)
    # The authors' transforms are these; see sam2/utils/transforms.py of facebookresearch/sam2.
    theirs = Compose([ToTensor(), Resize((SIDE, SIDE)), Normalize(MEAN, STD)])(image)
    mean, std = (torch.tensor(each)[:, None, None] for each in (MEAN, STD))
    assert torch.equal((squashed - mean) / std, theirs)


@pytest.mark.parametrize("shape", SHAPES)
def test_sam3_rounds_to_uint8(shape):
    image = noisy_slice(*shape)
    squashed = RESIZES["uint8"](SIDE).resize(image)
    levels = resize_linear(image.transpose(2, 0, 1).astype(float), (SIDE, SIDE), antialias=True)
    # The last digits decide which way a tie is rounded.
    ties = abs(levels % 1 - 0.5) < 1e-4
    assert ties.mean() < 0.1
    expected = np.where(ties, squashed.numpy() * 255, levels.round()) / 255
    np.testing.assert_allclose(squashed, expected, atol=1e-7)
    assert np.all(abs(squashed.numpy() * 255 - levels) < 0.501)


@pytest.mark.parametrize("shape", SHAPES)
def test_medsam_squashes_by_a_cubic_spline_and_uses_the_own_range(shape):
    image = noisy_slice(*shape)
    squashed = RESIZES["bicubic"](SIDE).resize(image)
    assert squashed.min() == 0
    assert squashed.max() == 1
    sigmas = [max(0, (length / SIDE - 1) / 2) for length in shape]
    blurred = ndimage.gaussian_filter(image.astype(float), (*sigmas, 0), mode="mirror")
    down, across = (cubic_spline_weights(length, SIDE) for length in shape)
    levels = np.einsum("ir,rcn,jc->nij", down, blurred, across).clip(image.min(), image.max())
    truncated = np.floor(levels)
    # The last digits decide on which side of a whole number a level is.
    whole = abs(levels - levels.round()) < 1e-6
    scaled = squashed.numpy() * (truncated.max() - truncated.min()) + truncated.min()
    np.testing.assert_allclose(scaled[~whole], truncated[~whole], atol=1e-4)
    assert abs(scaled - levels).max() < 1.0001
    assert whole.mean() < 0.7 or shape == (SIDE, SIDE)


def test_medsam_of_a_uniform_slice_is_zero():
    uniform = np.full((40, 56, 3), 9, dtype=np.uint8)
    assert not RESIZES["bicubic"](SIDE).resize(uniform).any()


@pytest.mark.parametrize("resize", ["floats", "uint8", "bicubic"])
def test_squashed_coordinates(resize):
    corners_xy = np.array([[[0, 0], [56, 40]], [[7, 30], [28, 40]]])
    expected = np.array([[[0, 0], [64, 64]], [[8, 48], [32, 64]]])
    np.testing.assert_array_equal(RESIZES[resize](SIDE).coordinates(corners_xy, (40, 56)), expected)


def smooth_logits(h: int = 16) -> torch.Tensor:
    logits = torch.randn((3, 2, h, h), generator=torch.Generator().manual_seed(h))
    return torch.from_numpy(ndimage.gaussian_filter(logits.numpy(), (0, 0, 1.5, 1.5))) * 20


def assert_same_masks(masks: torch.Tensor, levels: np.ndarray) -> None:
    """levels: positive inside."""
    assert masks.shape == levels.shape
    assert 0 < masks.float().mean() < 1
    differ = masks.numpy() != (levels > 0)
    assert np.all(abs(levels[differ]) < 1e-5)
    assert differ.mean() < 1e-3


@pytest.mark.parametrize("shape", SHAPES)
def test_mask_rules(shape):
    logits = smooth_logits()
    numbers = logits.double().numpy()
    masks = {
        rule: to_mask(rule, logits, shape, RESIZES[resize](SIDE))
        for rule, resize in (("crop", "longest_side"), ("direct", "floats"), ("sigmoid", "bicubic"))
    }
    square = resize_linear(numbers, (SIDE, SIDE), antialias=False)
    rows, columns = (int(length * SIDE / max(shape) + 0.5) for length in shape)
    cropped = square[..., :rows, :columns]
    assert_same_masks(masks["crop"], resize_linear(cropped, shape, antialias=False))
    assert_same_masks(masks["direct"], resize_linear(numbers, shape, antialias=False))
    probabilities = resize_linear(1 / (1 + np.exp(-numbers)), shape, antialias=False)
    assert_same_masks(masks["sigmoid"], probabilities - 0.5)
    assert (masks["sigmoid"] != masks["direct"]).any()


def test_sam3_fills_small_holes():
    logits = smooth_logits(72)
    background = logits.numpy() <= 0
    eight = np.zeros((3, 3, 3, 3))
    eight[1, 1] = 1  # neighbours in the same mask, also diagonal ones
    regions, count = ndimage.label(background, eight)
    areas = np.bincount(regions.ravel())
    small = [region for region in range(1, count + 1) if areas[region] <= 256]
    assert 0 < len(small) < count
    filled = np.where(np.isin(regions, small), 10.0, logits.double().numpy())
    masks = to_mask("fill_holes", logits, (100, 90), RESIZES["uint8"](SIDE))
    assert_same_masks(masks, resize_linear(filled, (100, 90), antialias=False))
    assert (masks != to_mask("direct", logits, (100, 90), RESIZES["uint8"](SIDE))).any()
    # A hole of 256 is filled, and one of 257 is not.
    for area, expected in ((256, 1.0), (257, 0.0)):
        one = torch.ones(1, 1, 40, 40)
        one.flatten()[:area] = -1
        (hole,) = to_mask("fill_holes", one, (40, 40), RESIZES["uint8"](SIDE)).flatten()[:1].float()
        assert hole == expected
