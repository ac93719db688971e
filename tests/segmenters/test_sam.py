import numpy as np
import pytest
import torch
from conftest import chest, tiny_sam
from segment_anything import SamPredictor
from torch.utils._python_dispatch import TorchDispatchMode

from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.rules import NEGATIVES, POINTS, PromptProtocol, make_prompts
from sam_lungs.segmenters.sam import SamSegmenter, choose_devices
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


@pytest.mark.parametrize("shape", [(40, 56), (56, 40), (64, 64), (100, 37)])
@pytest.mark.parametrize("protocol", PROTOCOLS, ids=str)
def test_masks_and_scores_are_those_of_sam_predictor(shape, protocol):
    image_rgb, prompts = slice_and_prompts(*shape, protocol)
    predictor = SamPredictor(tiny_sam())
    predictor.set_image(image_rgb)
    box = prompts.box_rc
    masks, scores, _ = predictor.predict(
        point_coords=np.array([(column, row) for row, column in prompts.points_rc]),
        point_labels=prompts.labels,
        box=None if box is None else np.array([box[1], box[0], box[3], box[2]]),
        multimask_output=False,
    )
    prediction = SamSegmenter(tiny_sam(), CPU).segment(image_rgb, prompts)
    assert prediction.mask.shape == shape
    assert prediction.mask.dtype == bool
    assert 0 < prediction.mask.sum() < prediction.mask.size
    assert np.count_nonzero(prediction.mask != masks[0]) <= prediction.mask.size / 100_000
    assert prediction.score == pytest.approx(scores[0], abs=1e-6)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_lower_precision_is_used_and_close(precision):
    image_rgb, prompts = slice_and_prompts(40, 56, PromptProtocol())
    exact = SamSegmenter(tiny_sam(), CPU)
    lower = SamSegmenter(tiny_sam(), CPU, precision)
    scores = [segmenter.segment(image_rgb, prompts).score for segmenter in (exact, lower)]
    embeddings = [segmenter.encode([segmenter.resize(image_rgb)]) for segmenter in (exact, lower)]
    assert 0 < (embeddings[0] - embeddings[1]).abs().max() < 0.1
    assert embeddings[1].dtype == torch.float32
    assert scores[0] != scores[1]
    assert scores[0] == pytest.approx(scores[1], abs=0.05)


def test_no_float64_meets_the_model():
    """Apple's GPUs have no float64: no operation may see one."""

    class NoFloat64(TorchDispatchMode):
        def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
            out = operation(*args, **(kwargs or {}))
            for tensor in [*args, out]:
                assert getattr(tensor, "dtype", None) != torch.float64, operation
            return out

    image_rgb, prompts = slice_and_prompts(40, 56, PromptProtocol())
    segmenter = SamSegmenter(tiny_sam(), CPU)
    with NoFloat64():
        segmenter.segment(image_rgb, prompts)


def test_nothing_faster_and_less_exact_is_left_switched_on(monkeypatch):
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
    first, second = (segmenter.segment(image_rgb, prompts) for _ in range(2))
    np.testing.assert_array_equal(first.mask, second.mask)
    assert first.score == second.score


@pytest.mark.parametrize(
    ("cuda", "mps", "automatic"),
    [(True, True, "cuda"), (True, False, "cuda"), (False, True, "mps"), (False, False, "cpu")],
)
def test_the_device_is_the_one_asked_for_or_refused(monkeypatch, cuda, mps, automatic):
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
