"""NaN and infinity are errors wherever a model computes them, never masks."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import chest, tiny_sam
from hf_models import BUILDERS, build

from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.protocols import PROTOCOLS, Prompts
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.segmenters.base import NotFiniteError
from sam_lungs.segmenters.checkpoints import check_finite
from sam_lungs.segmenters.embeddings import EmbeddingStore
from sam_lungs.segmenters.families import describe
from sam_lungs.segmenters.finite import all_finite
from sam_lungs.segmenters.hf import TransformersSegmenter
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.study.pipeline import Pipeline, PromptedSlice
from sam_lungs.utils.errors import InputError

CPU = torch.device("cpu")
IMAGE, MASKS = chest(slices=4)
SIZE = IMAGE.shape[:2]
# EdgeTAM shares its rules with SAM 2, and is slow to build.
MODELS = ("vit_l", *(family for family in BUILDERS if family != "edgetam"))


def segmenter(model: str, precision: str = "float32", change=lambda _: None):
    """change: gets the model before it is moved to the device."""
    if model == "vit_l":
        identity = {"model": model, "family": "segment-anything", "weights": {}}
        identity |= {"preprocessing": "", "packages": {}}
        sam = tiny_sam()
        change(sam)
        return SamSegmenter(sam, CPU, precision, identity)
    built = build(model)
    change(built)
    identity = {"model": model, "weights": {}} | describe(model)
    return TransformersSegmenter(built, CPU, precision, identity)


def prompts(index: int = 2) -> Prompts:
    made = make_prompts(MASKS[:, :, index], PROTOCOLS["paper"])
    # All models accept a box alone.
    return Prompts(np.empty((0, 2), int), np.empty(0, int), made.box_rc)


def picture_of(segmenter, index: int = 2) -> torch.Tensor:
    return segmenter.prepare(slice_to_rgb(IMAGE[:, :, index], LUNG_WINDOW))


def damage(part: str, model: torch.nn.Module) -> None:
    """Set one number of the first parameter of a part to NaN."""
    first = next(each for name, each in model.named_parameters() if name.startswith(part))
    first.data.view(-1)[0] = np.nan


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_number_is_found_at_any_place(value):
    for shape in ((1,), (3, 5), (2, 3, 33)):
        tensor = torch.zeros(shape)
        assert all_finite([tensor, torch.zeros(0), torch.full((2,), 3e38)])
        for place in (0, -1):
            tensor.view(-1)[place] = value
            assert not all_finite([torch.zeros(4), tensor])
            tensor.view(-1)[place] = 0
    assert all_finite([])


@pytest.mark.parametrize("model", MODELS)
def test_an_image_encoder_that_fails(model):
    name = "image_encoder" if model == "vit_l" else "vision_encoder"
    broken = segmenter(model, change=partial(damage, name))
    with pytest.raises(NotFiniteError, match=rf"^{model}: computed .* from its weights; .*use oth"):
        broken.encode([picture_of(broken)])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("part", ["mask_decoder.iou", "mask_decoder.output_hypernetworks"])
def test_a_mask_decoder_that_fails(model, part):
    def change(built: torch.nn.Module) -> None:
        for name, parameter in built.named_parameters():
            if name.startswith(part):
                parameter.data.fill_(np.inf)

    broken = segmenter(model, change=change)
    embeddings = broken.encode([picture_of(broken)])
    for multimask in (False, True):
        with pytest.raises(NotFiniteError, match="from its weights"):
            broken.decode(embeddings, SIZE, [[prompts()]], multimask=multimask)
        with pytest.raises(NotFiniteError, match="from its weights"):
            broken.decode_slice(embeddings, SIZE, [prompts()], multimask=multimask)


@pytest.mark.parametrize("model", MODELS)
def test_embeddings_that_are_not_finite_are_not_decoded(model):
    """Also one number of one tensor, as from a file of another program."""
    whole = segmenter(model)
    embeddings = whole.encode([picture_of(whole)])
    whole.decode(embeddings, SIZE, [[prompts()]])
    for number, value in ((0, np.nan), (-1, np.inf)):
        broken = [tensor.clone() for tensor in embeddings]
        broken[number][..., -1, -1] = value
        with pytest.raises(NotFiniteError):
            whole.decode(tuple(broken), SIZE, [[prompts()]])


@torch.no_grad()
def overflow_float16(sam: torch.nn.Module) -> None:
    """Scale weights so that activations are too large for float16, and results nearly the same."""
    for block in sam.image_encoder.blocks:
        block.mlp.lin1.weight *= 1e7
        block.mlp.lin2.weight *= 1e-7


def test_the_remedy_for_float16():
    broken = segmenter("vit_l", "float16", overflow_float16)
    with pytest.raises(
        NotFiniteError, match=r"in --precision float16; use --precision bfloat16 or float32$"
    ):
        broken.encode([picture_of(broken)])
    for remedy in ("bfloat16", "float32"):
        repaired = segmenter("vit_l", remedy, overflow_float16)
        repaired.decode(repaired.encode([picture_of(repaired)]), SIZE, [[prompts()]])


def read(index: int) -> PromptedSlice:
    voxels, masks = IMAGE[:, :, index], MASKS[:, :, index]
    rgb = slice_to_rgb(voxels, LUNG_WINDOW)
    return PromptedSlice(index, voxels, masks, rgb, [[prompts(index)]], [0])


def store_in(folder: Path, segmenter, stored: str = "float32") -> EmbeddingStore:
    return EmbeddingStore(folder, segmenter.identity, None, "float32", stored)


@pytest.mark.parametrize("options", [{}, {"one_click": True}, {"by_slice": True}], ids=str)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_the_pipeline_names_the_first_such_slice(tmp_path, monkeypatch, options, batch_size):
    whole = segmenter("vit_l")
    encode = whole._encode
    second = picture_of(whole, 2)

    def fail_in_slice_2(pictures: torch.Tensor) -> tuple[torch.Tensor]:
        (embedding,) = encode(pictures)
        return (embedding * np.nan if torch.equal(pictures[0], second) else embedding,)

    monkeypatch.setattr(whole, "_encode", fail_in_slice_2)
    store = store_in(tmp_path, whole)
    segmented = Pipeline([whole], batch_size, **options).run(read, [1, 2, 3], store)
    if batch_size == 1:
        assert next(segmented).prompted.index == 1
    with pytest.raises(NotFiniteError, match=r"^slice 2: vit_l: computed values that are not fin"):
        next(segmented)
    assert not (tmp_path / "slice_0002.npz").exists()
    assert all_finite(store.load(1, IMAGE[:, :, 1]))


def test_saved_embeddings_that_are_not_finite_are_computed_again(tmp_path):
    whole = segmenter("vit_l")
    store, voxels = store_in(tmp_path, whole), IMAGE[:, :, 1]
    (embedding,) = whole.encode([picture_of(whole, 1)])
    store.save(1, voxels, (embedding[0] * np.nan,))  # as earlier versions did
    assert store.load(1, voxels) is None
    list(Pipeline([whole]).run(read, [1], store))
    assert torch.equal(store.load(1, voxels)[0], embedding[0])


def test_embeddings_that_are_too_large_for_their_precision_on_disk(tmp_path):
    whole = segmenter("vit_l")
    large = (torch.full((2, 2), 1e5),)
    assert torch.equal(store_in(tmp_path, whole).round(large)[0], large[0])
    with pytest.raises(NotFiniteError, match=r"--embeddings_precision float16; use float32$"):
        store_in(tmp_path, whole, "float16").round(large)


def test_weights_that_are_not_finite_are_refused():
    weights = {"a": torch.zeros(2), "number": torch.tensor(3), "b": torch.tensor([0, np.nan])}
    with pytest.raises(
        InputError, match=r"^w\.pth: 1 of 3 parameters have NaN or infinity, such as 'b'; .*use ot"
    ):
        check_finite(weights, Path("w.pth"))
    del weights["b"]
    check_finite(weights, Path("w.pth"))
