"""Many prompts of one slice give the masks of segment-anything, each as if it were alone."""

import numpy as np
import pytest
import torch
from conftest import tiny_sam
from hypothesis import given, settings
from hypothesis import strategies as st
from segment_anything import SamPredictor
from segment_anything.modeling import MaskDecoder, PromptEncoder, Sam, TwoWayTransformer

from sam_lungs.prompts.protocols import Prompts
from sam_lungs.segmenters import sam_decoder
from sam_lungs.segmenters.sam import SamSegmenter, decode_prompts
from sam_lungs.segmenters.sam_compact import build_compact
from sam_lungs.segmenters.sam_decoder import SliceDecoder

CPU = torch.device("cpu")
ROWS, COLUMNS = 40, 56


def without_zeros(sam: Sam) -> Sam:
    """Change all weights of the decoder: an untrained one has zeros, which would hide errors."""
    generator = torch.Generator().manual_seed(2)
    for parameter in [*sam.mask_decoder.parameters(), *sam.prompt_encoder.parameters()]:
        parameter.data += 0.1 * torch.randn(parameter.shape, generator=generator)
    return sam.eval().requires_grad_(False)


def small() -> Sam:
    return without_zeros(tiny_sam())


def compact() -> Sam:
    torch.manual_seed(0)
    return without_zeros(build_compact())


def published() -> Sam:
    """The decoder of vit_b, vit_l and vit_h, behind a tiny image encoder that is not called."""
    torch.manual_seed(0)
    encoder = tiny_sam().image_encoder
    prompt_encoder = PromptEncoder(
        embed_dim=256,
        image_embedding_size=(64, 64),
        input_image_size=(1024, 1024),
        mask_in_chans=16,
    )
    transformer = TwoWayTransformer(depth=2, embedding_dim=256, mlp_dim=2048, num_heads=8)
    decoder = MaskDecoder(transformer_dim=256, transformer=transformer)
    return Sam(encoder, prompt_encoder, decoder).eval().requires_grad_(False)


def arguments(
    sam: Sam, seed: int, points: int, box: bool, mask_prompt: bool
) -> tuple[torch.Tensor | None, ...]:
    """Return an embedding, points, labels, box and mask logits of one random prompt."""
    generator = torch.Generator().manual_seed(seed)
    channels, side = sam.prompt_encoder.embed_dim, sam.prompt_encoder.image_embedding_size[0]
    size = sam.prompt_encoder.input_image_size[0]
    return (
        torch.randn(1, channels, side, side, generator=generator),
        torch.rand(1, points, 2, generator=generator) * size,
        torch.randint(-1, 2, (1, points), generator=generator).float(),
        torch.rand(1, 4, generator=generator) * size if box else None,
        5 * torch.randn(1, 4 * side, 4 * side, generator=generator) if mask_prompt else None,
    )


def assert_equal_up_to_rounding(sam: Sam, multimask: bool, embeddings, *prompt) -> None:
    theirs, their_ious = decode_prompts(sam, embeddings, *prompt, multimask)
    ours, our_ious = SliceDecoder(sam, embeddings[0]).decode(*prompt, multimask)
    assert ours.shape == theirs.shape
    assert ours.dtype == our_ious.dtype == torch.float32
    assert our_ious.shape == their_ious.shape
    assert (ours - theirs).abs().max() < 1e-5 * theirs.abs().max()
    assert (our_ious - their_ious).abs().max() < 1e-5 * their_ious.abs().max().clamp(1)


MODELS = {"small": small(), "compact": compact()}
PROMPTS = st.tuples(st.integers(0, 1000), st.integers(0, 4), st.booleans(), st.booleans())
PROMPTS = PROMPTS.filter(lambda prompt: prompt[1] or prompt[2])


@settings(max_examples=40)
@given(st.sampled_from(sorted(MODELS)), PROMPTS, st.booleans())
def test_logits_and_predicted_ious_equal_those_of_segment_anything(model, prompt, multimask):
    sam = MODELS[model]
    assert_equal_up_to_rounding(sam, multimask, *arguments(sam, *prompt))


@pytest.mark.parametrize(("mask_prompt", "multimask"), [(False, False), (True, True)])
def test_the_decoder_of_the_published_models(mask_prompt, multimask):
    sam = without_zeros(published())
    prompt = arguments(sam, 0, 3, True, mask_prompt)
    assert_equal_up_to_rounding(sam, multimask, *prompt)


@pytest.mark.parametrize("depth", [1, 3])
def test_any_number_of_layers(depth):
    sam = small()
    torch.manual_seed(0)
    sam.mask_decoder.transformer = TwoWayTransformer(
        depth=depth, embedding_dim=32, mlp_dim=64, num_heads=4
    )
    assert_equal_up_to_rounding(without_zeros(sam), False, *arguments(sam, 0, 2, False, False))


@pytest.mark.parametrize("tokens", [1, 3, 16, 1000])
def test_the_size_of_the_pieces_does_not_matter(monkeypatch, tokens):
    monkeypatch.setattr(sam_decoder, "TOKENS_AT_ONCE", tokens)
    assert_equal_up_to_rounding(small(), True, *arguments(small(), 0, 2, True, False))


def slice_rgb() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (ROWS, COLUMNS, 3), dtype=np.uint8)


def mixed_prompts() -> list[Prompts]:
    """Clicks, several points, a box, and both."""
    generator = np.random.default_rng(1)
    prompts = []
    for points, box in [(1, False), (3, True), (1, False), (0, True), (2, False), (1, True)]:
        row, column = generator.integers(0, 20, 2)
        prompts.append(
            Prompts(
                generator.integers(0, ROWS, (points, 2)),
                generator.integers(0, 2, points),
                np.array([row, column, row + 15, column + 20]) if box else None,
            )
        )
    return prompts


@pytest.mark.parametrize("one_by_one", [True, False])
@pytest.mark.parametrize("multimask", [False, True])
def test_masks_equal_those_of_sam_predictor(one_by_one, multimask):
    predictor = SamPredictor(small())
    predictor.set_image(slice_rgb())
    segmenter = SamSegmenter(small(), CPU)
    segmenter._one_by_one = one_by_one  # False as on a GPU
    embeddings = segmenter.encode([segmenter.prepare(slice_rgb())])
    mask_inputs = None
    for _ in range(2):  # the second time with mask prompts
        decoded = segmenter.decode_slice(
            embeddings, (ROWS, COLUMNS), mixed_prompts(), mask_inputs, multimask
        )
        for number, prompt in enumerate(mixed_prompts()):
            masks, ious, logits = predictor.predict(
                point_coords=prompt.points_xy if len(prompt.labels) else None,
                point_labels=prompt.labels if len(prompt.labels) else None,
                box=prompt.box_xyxy,
                mask_input=None if mask_inputs is None else mask_inputs[number, None].numpy(),
                multimask_output=multimask,
            )
            kept = slice(None) if multimask else 0
            assert 0 < masks.sum() < masks.size
            np.testing.assert_array_equal(decoded.masks[number], masks[kept])
            np.testing.assert_allclose(decoded.predicted_ious[number], ious[kept], atol=1e-5)
            np.testing.assert_allclose(decoded.mask_logits[number], logits[kept], atol=1e-4)
        mask_inputs = decoded.mask_logits[:, 0] if multimask else decoded.mask_logits


@pytest.mark.parametrize("mask_choice", ["model", "best_score"])
def test_a_prompt_has_the_same_bits_alone_and_among_others(mask_choice):
    segmenter = SamSegmenter(small(), CPU, mask_choice=mask_choice)
    embeddings = segmenter.encode([segmenter.prepare(slice_rgb())])
    prompts = mixed_prompts()
    mask_logits = None
    for _ in range(2):  # the second time with mask prompts
        together = segmenter.decode_slice(embeddings, (ROWS, COLUMNS), prompts, mask_logits)
        for number in reversed(range(len(prompts))):
            alone = segmenter.decode_slice(
                embeddings,
                (ROWS, COLUMNS),
                [prompts[number]],
                None if mask_logits is None else mask_logits[[number]],
            )
            for one, all_of_them in zip(alone, together, strict=True):
                assert torch.equal(one[0], all_of_them[number])
        mask_logits = together.mask_logits
