import numpy as np
import pytest
import torch
from conftest import ROOT, chest, tiny_sam
from hf_models import BUILDERS, as_transformers, build
from torch.utils._python_dispatch import TorchDispatchMode

from sam_lungs.data.readers import read_volume
from sam_lungs.data.windowing import LUNG_WINDOW, choose_window, slice_to_rgb
from sam_lungs.prompts.protocols import PROTOCOLS, Prompts
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.segmenters.checkpoints import load_sam
from sam_lungs.segmenters.embeddings import EmbeddingStore
from sam_lungs.segmenters.families import FAMILIES, describe
from sam_lungs.segmenters.hf import TransformersSegmenter
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.synthetic.phantom import sample_slice
from sam_lungs.utils.errors import InputError

CPU = torch.device("cpu")
COMPACT = ROOT / "checkpoints/sam_compact.pth"
SIZE = (40, 56)


def segmenter(family: str, model=None, precision="float32", mask_choice="model"):
    identity = {"model": family, "weights": {"a": "ab" * 32}, **describe(family, mask_choice)}
    return TransformersSegmenter(model or build(family), CPU, precision, identity, mask_choice)


def box_only(prompts: Prompts) -> Prompts:
    return Prompts(np.empty((0, 2), dtype=int), np.empty(0, dtype=int), prompts.box_rc)


def slice_and_prompts(family: str = "sam", shift: int = 0) -> tuple[np.ndarray, list[Prompts]]:
    """A slice, and all its prompts that the family accepts: with a box, without, and box only."""
    image, masks = (np.roll(array[:, :, 2], shift, 1) for array in chest(*SIZE))
    prompts = [make_prompts(masks, PROTOCOLS[name]) for name in ("paper", "no_box", "points")]
    prompts.append(box_only(prompts[0]))
    kinds = FAMILIES[family].prompt_kinds
    return slice_to_rgb(image, LUNG_WINDOW), prompts if "points" in kinds else prompts[-1:]


def all_prompts(masks: np.ndarray) -> list[Prompts]:
    prompts = [make_prompts(masks, protocol) for protocol in PROTOCOLS.values()]
    return [*prompts, box_only(prompts[0])]


def assert_same_masks_as_segment_anything(sam, image_rgb, prompts) -> None:
    ours, theirs = SamSegmenter(sam, CPU), segmenter("sam", as_transformers(sam))
    size_rc = image_rgb.shape[:2]
    one, other = (
        each.decode(each.encode([each.prepare(image_rgb)]), size_rc, [prompts])
        for each in (ours, theirs)
    )
    assert 0 < one.masks.float().mean() < 1
    assert torch.equal(one.masks, other.masks)
    torch.testing.assert_close(one.predicted_ious, other.predicted_ious, atol=1e-6, rtol=0)
    torch.testing.assert_close(one.mask_logits, other.mask_logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("number", range(2))
def test_compact_gives_the_same_masks_as_segment_anything_on_phantoms(number):
    hu, masks = sample_slice(np.random.default_rng([1, number]), 256, 200, "hounsfield")
    image_rgb = slice_to_rgb(hu, LUNG_WINDOW)
    assert_same_masks_as_segment_anything(
        load_sam("compact", COMPACT), image_rgb, all_prompts(masks)
    )


@pytest.mark.parametrize("name", ["coronacases_001_slice_122", "radiopaedia_14_85914_0_slice_000"])
def test_compact_gives_the_same_masks_as_segment_anything_on_real_slices(real_data, name):
    image = read_volume(real_data / f"image_{name}.nii.gz").array
    masks = read_volume(real_data / f"masks_{name}.nii.gz").array[:, :, 0]
    image_rgb = slice_to_rgb(image[:, :, 0], choose_window("auto", image))
    assert_same_masks_as_segment_anything(
        load_sam("compact", COMPACT), image_rgb, all_prompts(masks)
    )


@pytest.mark.parametrize("shape", [(40, 56), (100, 37)])
def test_a_seeded_sam_gives_the_same_masks_as_segment_anything(shape):
    image, masks = (array[:, :, 2] for array in chest(*shape))
    assert_same_masks_as_segment_anything(
        tiny_sam(), slice_to_rgb(image, LUNG_WINDOW), all_prompts(masks)
    )


@pytest.mark.parametrize(
    ("family", "name"),
    [
        ("sam", "mask_decoder.transformer"),
        ("medsam", "mask_decoder.transformer"),
        ("sam_hq", "mask_decoder.transformer"),
        ("sam2", "mask_decoder.transformer"),
        ("edgetam", "mask_decoder.transformer"),
        ("sam3", "mask_decoder.transformer"),
        ("sam3", "vision_encoder.backbone"),
    ],
)
def test_layer_norms_have_the_epsilon_of_the_authors(family, name):
    model = segmenter(family)._model
    norms = [
        module
        for module in model.get_submodule(name).modules()
        if isinstance(module, torch.nn.LayerNorm)
    ]
    assert len(norms) >= 5
    assert {norm.eps for norm in norms} == {1e-5}
    assert model.mask_decoder.upscale_layer_norm.eps == 1e-6


@pytest.mark.parametrize("multimask", [False, True])
@pytest.mark.parametrize("family", BUILDERS)
def test_encoding_and_decoding_equal_the_whole_forward(family, multimask):
    # With four levels, as in the published SAM 3, transformers' forward is not the authors'; see
    # `test_sam3_adds_the_memory_embedding_to_the_level_that_is_used`.
    model = build("sam3", 3) if family == "sam3" else build(family)
    segment = segmenter(family, model)
    image_rgb, prompts = slice_and_prompts(family)
    prompt = prompts[0]
    picture = segment.prepare(image_rgb)
    decoded = segment.decode(segment.encode([picture]), SIZE, [[prompt]], multimask=multimask)
    to_input = segment._resize.coordinates
    box_xy = to_input(prompt.box_xyxy.reshape(2, 2), SIZE)
    inputs = {"input_boxes": torch.tensor(box_xy.reshape(1, 1, 4)).float()}
    if len(prompt.labels):
        points_xy = to_input(prompt.points_xy, SIZE)
        inputs["input_points"] = torch.tensor(points_xy[None, None]).float()
        inputs["input_labels"] = torch.tensor(prompt.labels[None, None])
    with torch.inference_mode():
        whole = model(pixel_values=picture[None], multimask_output=multimask, **inputs)
    masks = slice(None) if multimask else 0
    assert torch.equal(decoded.mask_logits[0, 0], whole.pred_masks[0, 0, masks])
    assert torch.equal(decoded.predicted_ious[0, 0], whole.iou_scores[0, 0, masks])
    assert decoded.masks.shape == (1, 1, *([3] if multimask else []), *SIZE)


@pytest.mark.parametrize("family", BUILDERS)
def test_kept_embeddings_give_the_same_bits_as_new_ones(tmp_path, family):
    segment = segmenter(family)
    image_rgb, prompts = slice_and_prompts(family)
    new = segment.encode([segment.prepare(image_rgb)])
    assert {tensor.dtype for tensor in new} == {torch.float32}
    store = EmbeddingStore(tmp_path, segment.identity, None, "float32", "float32")
    store.save(0, image_rgb, tuple(tensor[0] for tensor in new))
    kept = tuple(tensor[None] for tensor in store.load(0, image_rgb))
    for one, other in zip(
        segment.decode(new, SIZE, [prompts]), segment.decode(kept, SIZE, [prompts]), strict=True
    ):
        assert torch.equal(one, other)


@pytest.mark.parametrize("family", BUILDERS)
def test_a_slice_does_not_depend_on_its_batch(family):
    segment = segmenter(family)
    both = [slice_and_prompts(family, shift) for shift in (0, 8)]
    embeddings = segment.encode([segment.prepare(image_rgb) for image_rgb, _ in both])
    together = segment.decode(embeddings, SIZE, [prompts for _, prompts in both])
    refined = segment.decode(
        embeddings, SIZE, [prompts for _, prompts in both], together.mask_logits
    )
    assert not torch.equal(together.mask_logits, refined.mask_logits)
    for number, (image_rgb, prompts) in enumerate(both):
        alone = segment.encode([segment.prepare(image_rgb)])
        for column, prompt in enumerate(prompts):
            decoded = segment.decode(alone, SIZE, [[prompt]])
            again = segment.decode(alone, SIZE, [[prompt]], decoded.mask_logits)
            for one, other in ((decoded, together), (again, refined)):
                for tensor, of_all in zip(one, other, strict=True):
                    assert torch.equal(tensor[0, 0], of_all[number, column])
    # As on a GPU: the same but for the last digits.
    segment._one_by_one = False
    embeddings = segment.encode([segment.prepare(image_rgb) for image_rgb, _ in both])
    batched = segment.decode(embeddings, SIZE, [prompts for _, prompts in both])
    torch.testing.assert_close(batched.mask_logits, together.mask_logits, atol=1e-5, rtol=0)


def test_sam_hq_keeps_the_intermediate_embedding():
    segment = segmenter("sam_hq")
    image_rgb, prompts = slice_and_prompts()
    image, intermediate = segment.encode([segment.prepare(image_rgb)])
    assert intermediate.shape == (1, 4, 4, 32)
    masks = segment.decode((image, intermediate), SIZE, [prompts]).mask_logits
    without = segment.decode((image, 0 * intermediate), SIZE, [prompts]).mask_logits
    assert (masks - without).abs().max() > 1e-3


def test_sam3_adds_the_memory_embedding_to_the_level_that_is_used():
    model = build("sam3")
    segment = segmenter("sam3", model)
    picture = segment.prepare(slice_and_prompts()[0])
    with torch.inference_mode():
        levels = model.vision_encoder(picture[None]).fpn_hidden_states
    assert [level.shape[-1] for level in levels] == [16, 8, 4, 2]
    memory = model.no_memory_embedding.reshape(1, 32, 1, 1)
    assert memory.abs().max() > 0.05
    assert torch.equal(segment.encode([picture])[-1], levels[2] + memory)


@pytest.mark.parametrize("family", ["sam", "sam_hq", "sam2", "edgetam", "sam3"])
def test_best_score_is_the_best_of_three(family):
    segment = segmenter(family, mask_choice="best_score")
    image_rgb, prompts = slice_and_prompts()
    embeddings = segment.encode([segment.prepare(image_rgb)])
    best = segment.decode(embeddings, SIZE, [prompts])
    three = segment.decode(embeddings, SIZE, [prompts], multimask=True)
    for number in range(len(prompts)):
        place = three.predicted_ious[0, number].argmax()
        for tensor, of_three in zip(best, three, strict=True):
            assert torch.equal(tensor[0, number], of_three[0, number, place])


@pytest.mark.parametrize("stable", [True, False])
@pytest.mark.parametrize("family", ["sam2", "edgetam", "sam3"])
def test_the_authors_choice_depends_on_the_stability_of_token_0(family, stable):
    def model():
        built = build(family)
        # Large logits are stable: few of them are between -0.05 and 0.05.
        built.mask_decoder.output_hypernetworks_mlps[0].proj_out.weight.mul_(1e4 if stable else 1)
        built.mask_decoder.output_hypernetworks_mlps[0].proj_out.bias.mul_(1e4 if stable else 1)
        return built

    image_rgb, prompts = slice_and_prompts()
    decoded = {}
    for choice in ("model", "token0", "best_score"):
        segment = segmenter(family, model(), mask_choice=choice)
        embeddings = segment.encode([segment.prepare(image_rgb)])
        decoded[choice] = segment.decode(embeddings, SIZE, [prompts])
    token0 = decoded["token0"].mask_logits
    stability = (token0 > 0.05).sum((-2, -1)) / (token0 > -0.05).sum((-2, -1))
    assert torch.equal(stability >= 0.98, torch.full_like(stability, stable, dtype=bool))
    expected = decoded["token0" if stable else "best_score"]
    for tensor, other in zip(decoded["model"], expected, strict=True):
        assert torch.equal(tensor, other)
    assert not torch.equal(token0, decoded["best_score"].mask_logits)


@pytest.mark.parametrize(("family", "clamped"), [("sam", False), ("sam2", True), ("sam3", True)])
def test_logits_to_refine_are_clamped_as_by_the_authors(family, clamped):
    segment = segmenter(family)
    image_rgb, prompts = slice_and_prompts()
    embeddings = segment.encode([segment.prepare(image_rgb)])
    logits = 60 * torch.sign(segment.decode(embeddings, SIZE, [prompts]).mask_logits)
    one, other = (
        segment.decode(embeddings, SIZE, [prompts], each).mask_logits
        for each in (logits, logits.clamp(-32, 32))
    )
    assert torch.equal(one, other) == clamped


def test_medsam_refuses_points_in_one_line():
    segment = segmenter("medsam")
    image_rgb, prompts = slice_and_prompts("sam")
    embeddings = segment.encode([segment.prepare(image_rgb)])
    for prompt in prompts[:3]:
        with pytest.raises(InputError, match=r"^medsam: accepts box prompts only, .*box_only$"):
            segment.decode(embeddings, SIZE, [[prompt]])


@pytest.mark.parametrize("family", BUILDERS)
def test_lower_precision_is_of_the_image_encoder_only(family):
    image_rgb, prompts = slice_and_prompts(family)
    exact, lower = (segmenter(family, precision=each) for each in ("float32", "bfloat16"))
    embeddings = [each.encode([each.prepare(image_rgb)]) for each in (exact, lower)]
    for one, other in zip(*embeddings, strict=True):
        assert other.dtype == torch.float32
        assert 0 < (one - other).abs().max() < 0.1 * one.abs().max()
    # The decoders are the same.
    for one, other in zip(
        *(each.decode(embeddings[1], SIZE, [prompts]) for each in (exact, lower)), strict=True
    ):
        assert torch.equal(one, other)
    assert {weight.dtype for weight in lower._model.parameters()} == {torch.float32}


@pytest.mark.parametrize("family", BUILDERS)
def test_no_tensor_on_the_device_is_float64(family):
    """Apple's GPUs have no float64."""

    class NoFloat64(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            out = operation(*args, **(kwargs or {}))
            for tensor in [*args, out]:
                assert getattr(tensor, "dtype", None) != torch.float64, operation
            return out

    segment = segmenter(family)
    image_rgb, prompts = slice_and_prompts(family)
    picture = segment.prepare(image_rgb)
    assert picture.dtype == torch.float32
    with NoFloat64():
        segment.decode(segment.encode([picture]), SIZE, [prompts])
