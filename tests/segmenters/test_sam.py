import numpy as np
import pytest
import torch
from conftest import chest, tiny_sam
from segment_anything import SamPredictor
from torch.utils._python_dispatch import TorchDispatchMode

from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.protocols import NEGATIVES, POINTS, PromptProtocol, Prompts
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.segmenters.base import segment
from sam_lungs.segmenters.devices import choose_devices
from sam_lungs.segmenters.sam import SamSegmenter, decode_prompts
from sam_lungs.utils.errors import InputError

CPU = torch.device("cpu")
PROTOCOLS = [
    PromptProtocol(points, negative, 0, box)
    for points in POINTS
    for negative in NEGATIVES
    for box in (True, False)
]


def slice_and_prompts(rows: int, columns: int, protocol: PromptProtocol):
    image, masks = chest(rows, columns)
    return slice_to_rgb(image[:, :, 2], LUNG_WINDOW), make_prompts(masks[:, :, 2], protocol)


def predicted_by_sam_predictor(image_rgb, prompts, mask_input=None, multimask=False):
    predictor = SamPredictor(tiny_sam())
    predictor.set_image(image_rgb)
    box, points = prompts.box_rc, [(column, row) for row, column in prompts.points_rc]
    return predictor.predict(
        point_coords=np.array(points) if points else None,
        point_labels=prompts.labels if points else None,
        box=None if box is None else np.array([box[1], box[0], box[3], box[2]]),
        mask_input=mask_input,
        multimask_output=multimask,
    )


def assert_same_masks(masks, expected) -> None:
    assert 0 < np.count_nonzero(masks) < masks.size
    assert np.count_nonzero(masks != expected) <= masks.size / 100_000


@pytest.mark.parametrize("shape", [(40, 56), (56, 40), (64, 64), (100, 37)])
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=str)
def test_masks_and_predicted_ious_equal_those_of_sam_predictor(shape, protocol):
    image_rgb, prompts = slice_and_prompts(*shape, protocol)
    masks, predicted_ious, _ = predicted_by_sam_predictor(image_rgb, prompts)
    prediction = segment(SamSegmenter(tiny_sam(), CPU), image_rgb, prompts)
    assert prediction.mask.shape == shape
    assert prediction.mask.dtype == bool
    assert_same_masks(prediction.mask, masks[0])
    assert prediction.predicted_iou == pytest.approx(predicted_ious[0], abs=1e-6)


@pytest.mark.parametrize("shape", [(40, 56), (100, 37)])
def test_a_box_without_points_equals_sam_predictor(shape):
    image_rgb, prompts = slice_and_prompts(*shape, PromptProtocol())
    box = Prompts(np.empty((0, 2), dtype=int), np.empty(0, dtype=int), prompts.box_rc)
    masks, predicted_ious, _ = predicted_by_sam_predictor(image_rgb, box)
    prediction = segment(SamSegmenter(tiny_sam(), CPU), image_rgb, box)
    assert_same_masks(prediction.mask, masks[0])
    assert prediction.predicted_iou == pytest.approx(predicted_ious[0], abs=1e-6)


@pytest.mark.parametrize("one_by_one", [True, False])
def test_mask_logits_come_out_and_go_back_in_as_with_sam_predictor(one_by_one):
    images, prompts = [], []
    for shape_shift in (0, 8):
        image, masks = chest(40, 56)
        image = np.roll(image, shape_shift, axis=1)
        masks = np.roll(masks, shape_shift, axis=1)
        images.append(slice_to_rgb(image[:, :, 2], LUNG_WINDOW))
        prompts.append([make_prompts(masks[:, :, 2], protocol) for protocol in PROTOCOLS[:4]])
    segmenter = SamSegmenter(tiny_sam(), CPU)
    segmenter._one_by_one = one_by_one  # False as on a GPU
    embeddings = segmenter.encode([segmenter.prepare(image) for image in images])
    first = segmenter.decode(embeddings, (40, 56), prompts)
    second = segmenter.decode(embeddings, (40, 56), prompts, first.mask_logits)
    assert first.mask_logits.shape == (2, 4, 16, 16)
    assert first.mask_logits.dtype == torch.float32
    assert not torch.equal(first.mask_logits, second.mask_logits)
    for place in np.ndindex(2, 4):
        number, column = place
        image_rgb, prompt, mask_input = images[number], prompts[number][column], None
        for decoded in (first, second):
            masks, ious, logits = predicted_by_sam_predictor(image_rgb, prompt, mask_input)
            assert_same_masks(decoded.masks[place].numpy(), masks[0])
            assert decoded.predicted_ious[place].item() == pytest.approx(ious[0], abs=1e-6)
            np.testing.assert_allclose(decoded.mask_logits[place], logits[0], atol=1e-4)
            mask_input = decoded.mask_logits[place][None].numpy()


@pytest.mark.parametrize("protocol", PROTOCOLS[:4], ids=str)
def test_multimask_and_best_score_equal_the_three_masks_of_sam_predictor(protocol):
    image_rgb, prompts = slice_and_prompts(40, 56, protocol)
    masks, ious, logits = predicted_by_sam_predictor(image_rgb, prompts, multimask=True)
    segmenter = SamSegmenter(tiny_sam(), CPU, mask_choice="best_score")
    embeddings = segmenter.encode([segmenter.prepare(image_rgb)])
    decoded = segmenter.decode(embeddings, (40, 56), [[prompts]], multimask=True)
    assert decoded.masks.shape == (1, 1, 3, 40, 56)
    assert np.count_nonzero(decoded.masks[0, 0].numpy() != masks) <= 3
    np.testing.assert_allclose(decoded.predicted_ious[0, 0], ious, atol=1e-6)
    np.testing.assert_allclose(decoded.mask_logits[0, 0], logits, atol=1e-4)
    best = segmenter.decode(embeddings, (40, 56), [[prompts]])
    for tensor, three in zip(best, decoded, strict=True):
        assert torch.equal(tensor[0, 0], three[0, 0, ious.argmax()])


def test_decode_prompts_gives_gradients():
    sam = tiny_sam().requires_grad_(True)
    embeddings = torch.randn(2, 32, 4, 4, requires_grad=True)
    logits, predicted_ious = decode_prompts(
        sam, embeddings, torch.ones(2, 3, 2), torch.tensor([[1, 0, -1]] * 2), None
    )
    assert logits.shape == (2, 16, 16)
    assert predicted_ious.shape == (2,)
    (logits.sum() + predicted_ious.sum()).backward()
    assert embeddings.grad.any()
    assert sam.prompt_encoder.point_embeddings[0].weight.grad.any()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_is_used_and_close(precision):
    image_rgb, prompts = slice_and_prompts(40, 56, PromptProtocol())
    exact = SamSegmenter(tiny_sam(), CPU)
    lower = SamSegmenter(tiny_sam(), CPU, precision)
    ious = [segment(each, image_rgb, prompts).predicted_iou for each in (exact, lower)]
    embeddings = [each.encode([each.prepare(image_rgb)])[0] for each in (exact, lower)]
    assert 0 < (embeddings[0] - embeddings[1]).abs().max() < 0.1
    assert embeddings[1].dtype == torch.float32
    assert ious[0] != ious[1]
    assert ious[0] == pytest.approx(ious[1], abs=0.05)


def test_no_tensor_is_float64():
    """Apple's GPUs have no float64."""

    class NoFloat64(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            out = operation(*args, **(kwargs or {}))
            for tensor in [*args, out]:
                assert getattr(tensor, "dtype", None) != torch.float64, operation
            return out

    image_rgb, prompts = slice_and_prompts(40, 56, PromptProtocol())
    segmenter = SamSegmenter(tiny_sam(), CPU)
    with NoFloat64():
        segment(segmenter, image_rgb, prompts)


def test_faster_and_less_exact_settings_are_switched_off(monkeypatch):
    for name, value in (("allow_tf32", True), ("benchmark", True), ("deterministic", False)):
        monkeypatch.setattr(torch.backends.cudnn, name, value)
    SamSegmenter(tiny_sam(), CPU)
    assert not torch.backends.cudnn.allow_tf32
    assert not torch.backends.cudnn.benchmark
    assert torch.backends.cudnn.deterministic
    assert torch.get_float32_matmul_precision() == "highest"


def test_a_second_run_gives_the_same_bits():
    image_rgb, prompts = slice_and_prompts(40, 56, PromptProtocol())
    segmenter = SamSegmenter(tiny_sam(), CPU)
    first, second = (segment(segmenter, image_rgb, prompts) for _ in range(2))
    np.testing.assert_array_equal(first.mask, second.mask)
    assert first.predicted_iou == second.predicted_iou


@pytest.mark.parametrize(
    ("cuda", "mps", "automatic"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_choose_devices(monkeypatch, cuda, mps, automatic):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    assert [device.type for device in choose_devices("auto")] == [automatic] * (1 + 2 * cuda)
    assert choose_devices("cpu") == [CPU]
    for name, present in (("cuda", cuda), ("mps", mps)):
        if present:
            numbers = range(3) if name == "cuda" else [None]
            assert [device.index for device in choose_devices(name)] == list(numbers)
        else:
            with pytest.raises(InputError, match=f"--device {name}"):
                choose_devices(name)
