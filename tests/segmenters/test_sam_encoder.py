"""The image encoder gives the same embeddings as segment-anything's with the same weights."""

from functools import partial

import pytest
import torch
from conftest import randomize_positions
from segment_anything.modeling import ImageEncoderViT

from sam_lungs.segmenters import sam_encoder as encoder
from sam_lungs.segmenters.sam_compact import build_compact
from sam_lungs.segmenters.sam_encoder import Encoder

# Width and heads of SAM's sizes; built with two blocks, one with windows and one without.
SIZES = {"vit_b": (768, 12), "vit_l": (1024, 16), "vit_h": (1280, 16)}


def build(size: str, side: int = 272, window: int = 14) -> ImageEncoderViT:
    """Return an untrained image encoder; 272 pixels are 17 x 17 tokens, not a multiple of 14."""
    torch.manual_seed(0)
    if size == "compact":
        vit = build_compact().image_encoder
    else:
        width, heads = SIZES[size]
        vit = ImageEncoderViT(
            img_size=side,
            embed_dim=width,
            depth=2,
            num_heads=heads,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=window,
            global_attn_indexes=(1,),
        )
    randomize_positions(vit)
    return vit.eval().requires_grad_(False)


def pictures(vit: ImageEncoderViT, count: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(count, 3, vit.img_size, vit.img_size, generator=generator)
    images[:, :, 200:] = 0  # like the padding of a slice that is not square
    return images


def relative_difference(one: torch.Tensor, other: torch.Tensor) -> float:
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("size", [*SIZES, "compact"])
def test_embeddings_equal_those_of_segment_anything(size, count):
    vit = build(size)
    images = pictures(vit, count)
    theirs = vit(images)
    ours = Encoder(vit, torch.float32).encode(images)
    assert ours.shape == theirs.shape
    assert ours.dtype == torch.float32
    assert relative_difference(ours, theirs) < 1e-5
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()


@pytest.mark.parametrize("window", [1, 4, 7, 16, 17, 20])
def test_every_window_size(window):
    vit = build("vit_b", window=window)
    images = pictures(vit, 1)
    assert relative_difference(Encoder(vit, torch.float32).encode(images), vit(images)) < 1e-5


@pytest.mark.parametrize("bias_numbers", [1, 300, 17**2 * 5, 17**4, 17**4 * 12, 1 << 30])
def test_the_size_of_the_pieces_does_not_matter(monkeypatch, bias_numbers):
    vit = build("vit_b")
    images = pictures(vit, 2)
    monkeypatch.setattr(encoder, "BIAS_NUMBERS", bias_numbers)
    assert relative_difference(Encoder(vit, torch.float32).encode(images), vit(images)) < 1e-5


def test_attention_for_gpus_gives_the_same_embeddings(monkeypatch):
    vit = build("vit_l")
    images = pictures(vit, 2)
    monkeypatch.setattr(encoder, "_attend_in_pieces", encoder._attend_extended)
    assert relative_difference(Encoder(vit, torch.float32).encode(images), vit(images)) < 1e-5


@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.bfloat16, 0.02), (torch.float16, 0.003)], ids=str
)
def test_lower_precision_is_close_but_not_equal_to_float32(dtype, near):
    images = pictures(build("vit_b"), 1)
    exact = build("vit_b")(images)
    lower = Encoder(build("vit_b"), dtype).encode(images)
    assert lower.dtype == torch.float32
    assert 1e-5 < relative_difference(lower, exact) < near
