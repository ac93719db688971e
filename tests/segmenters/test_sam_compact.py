"""The compact checkpoint, on phantoms and real slices that it was not trained on."""

import numpy as np
import pytest
import torch

from benchmarks.compact import SEED, measure
from sam_lungs.data.readers import read_volume
from sam_lungs.data.windowing import LUNG_WINDOW, choose_window, slice_to_rgb
from sam_lungs.prompts.protocols import PromptProtocol
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.segmenters.base import segment
from sam_lungs.segmenters.checkpoints import CHECKPOINTS, CHECKPOINTS_FOLDER, fetch, load_sam
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.study.metrics import dice
from sam_lungs.synthetic.phantom import phantom_volume
from sam_lungs.utils.errors import InputError

PATH = CHECKPOINTS_FOLDER / CHECKPOINTS["compact"].file_name


@pytest.fixture(scope="module")
def segmenter():
    return SamSegmenter(load_sam("compact", PATH), torch.device("cpu"))


def test_the_checkpoint_is_the_registered_one_in_half_precision():
    assert fetch("compact") == PATH
    assert PATH.stat().st_size <= 8e6
    weights = torch.load(PATH, weights_only=True)
    assert {weight.dtype for weight in weights.values()} == {torch.float16}


def test_a_missing_checkpoint_is_restored_with_git(tmp_path):
    with pytest.raises(InputError, match="git checkout -- checkpoints/sam_compact"):
        fetch("compact", tmp_path)


@pytest.mark.parametrize("variant", ["hounsfield", "windowed"])
def test_held_out_phantoms(segmenter, variant):
    window = LUNG_WINDOW if variant == "hounsfield" else None
    measured = []
    for case in range(2):
        image, masks, _ = phantom_volume(SEED, case, 16, variant)
        for index in np.flatnonzero(masks.any(axis=(0, 1))):
            rgb = slice_to_rgb(image[:, :, index], window)
            measured.append(measure(segmenter, rgb, masks[:, :, index]))
    assert np.mean([row["dice"] for row in measured]) > 0.9


@pytest.mark.parametrize(("prompt", "wanted"), [("one_lung", 1), ("between", 0)])
def test_prompts_are_followed(segmenter, prompt, wanted):
    image, masks, _ = phantom_volume(SEED, 0, 8, "hounsfield")
    measured = []
    for index in np.flatnonzero(masks.any(axis=(0, 1))):
        rgb = slice_to_rgb(image[:, :, index], LUNG_WINDOW)
        measured.append(measure(segmenter, rgb, masks[:, :, index]).get(prompt, wanted))
    assert abs(np.mean(measured) - wanted) < 0.1


@pytest.mark.parametrize(
    ("name", "floor"),
    [("coronacases_001_slice_122", 0.9), ("radiopaedia_14_85914_0_slice_000", 0.8)],
)
def test_real_slices(segmenter, real_data, name, floor):
    image = read_volume(real_data / f"image_{name}.nii.gz")
    masks = read_volume(real_data / f"masks_{name}.nii.gz")
    rgb = slice_to_rgb(image.array[:, :, 0], choose_window("auto", image.array))
    labels = masks.array[:, :, 0]
    predicted = segment(segmenter, rgb, make_prompts(labels, PromptProtocol())).mask
    assert dice(predicted, labels > 0) > floor
