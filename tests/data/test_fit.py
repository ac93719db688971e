from pathlib import Path

import numpy as np
import pytest
from conftest import chest

from sam_lungs.data.fit import check_coverage, check_fit
from sam_lungs.data.readers import read_volume
from sam_lungs.data.volume import Volume
from sam_lungs.data.windowing import LUNG_WINDOW, choose_window

CT, LUNGS = chest(64, 64, slices=5)
# Of different sizes and higher than the middle, as lungs are.
CT, LUNGS = np.roll(CT, 6, axis=0), np.roll(LUNGS, 6, axis=0)
CT[LUNGS == 2], LUNGS[LUNGS == 2] = 40, 0
CT[20:50, 40:48, 1:], LUNGS[20:50, 40:48, 1:] = -800, 2
TURNS = {
    "with their columns flipped": lambda labels: labels[:, ::-1],
    "with their rows flipped": lambda labels: labels[::-1],
    "with their slices flipped": lambda labels: labels[:, :, ::-1],
    "with their rows and columns flipped": lambda labels: labels[::-1, ::-1],
    "transposed": lambda labels: labels.swapaxes(0, 1),
    "rotated by 90 degrees": lambda labels: labels.swapaxes(0, 1)[::-1],
    "rotated by 270 degrees": lambda labels: labels.swapaxes(0, 1)[:, ::-1],
    "transposed and rotated by 180 degrees": lambda labels: labels.swapaxes(0, 1)[::-1, ::-1],
}
BACK = {"rotated by 90 degrees": "rotated by 270 degrees"}
BACK |= {back: turn for turn, back in BACK.items()}
# Both lungs, or one; a slice with a window of its own.
REAL = [
    ("image_coronacases_001_slice_122", "masks_coronacases_001_slice_122"),
    ("image_radiopaedia_14_85914_0_slice_000", "masks_radiopaedia_14_85914_0_slice_000"),
    ("chest_64/ct", "chest_64/lungs"),
    ("chest_64/ct", "chest_64/lung_left"),
    ("chest_64/ct", "chest_64/labels_cip"),
    ("lobes_2slices/ct", "lobes_2slices/lobes"),
    ("lobes_2slices/ct", "lobes_2slices/lungs_dcnn"),
]


def volumes(image: np.ndarray, labels: np.ndarray) -> tuple[Volume, Volume]:
    return Volume(image, None, Path("ct.npy")), Volume(labels, None, Path("m.npy"))


def test_masks_as_they_are_fit():
    assert check_fit(*volumes(CT, LUNGS), LUNG_WINDOW) is None
    assert check_coverage(*volumes(CT, LUNGS), LUNG_WINDOW) is None


@pytest.mark.parametrize("turn", [turn for turn in TURNS if "slices" not in turn])
@pytest.mark.parametrize("window", [LUNG_WINDOW, None])
def test_turned_masks_are_a_warning_that_says_how_to_turn_them_back(turn, window):
    finding = check_fit(*volumes(CT, TURNS[turn](LUNGS)), window)
    back = BACK.get(turn, turn)
    assert (
        finding.message
        == f"m.npy: masks {back} would fit the image better; check their voxel order"
    )
    assert finding.name == ("flipped" if "flipped" in turn else "transposed")
    assert not finding.is_fault


@pytest.mark.parametrize(("image_name", "masks_name"), REAL)
def test_real_masks_fit_and_turned_ones_are_found(real_data, image_name, masks_name):
    image = read_volume(real_data / f"{image_name}.nii.gz")
    masks = read_volume(real_data / f"{masks_name}.nii.gz")
    window = choose_window("auto", image.array, image.array[masks.array != 0])
    assert check_fit(image, masks, window) is None
    assert check_coverage(image, masks, window) is None
    for turn, apply in TURNS.items():
        turned = apply(masks.array)
        # Few slices are alike.
        if turned.shape != image.array.shape or ("slices" in turn and turned.shape[2] < 10):
            continue
        finding = check_fit(*volumes(image.array, turned), window)
        assert f"masks {BACK.get(turn, turn)} would fit" in finding.message


def test_masks_that_do_not_fit_in_any_position_are_not_called_turned():
    labels = np.random.default_rng(0).integers(0, 2, CT.shape, dtype=np.uint8)
    assert check_fit(*volumes(CT, labels), LUNG_WINDOW) is None
    assert check_fit(*volumes(np.zeros_like(CT), LUNGS), None) is None
    for labels in (np.ones((64, 64, 5), np.uint8), np.ones((1, 1, 1), np.uint8)):
        assert check_fit(*volumes(np.resize(CT, labels.shape), labels), LUNG_WINDOW) is None


def test_masks_of_the_whole_body_are_a_warning():
    body = ((CT > -400) | (LUNGS != 0)).astype(np.uint8)
    finding = check_coverage(*volumes(CT, body), LUNG_WINDOW)
    assert (finding.name, finding.is_fault) == ("coverage", False)
    assert finding.message.startswith("m.npy: masks cover 100% of the body")
    grey = ((CT.clip(-1400, 100) + 1400) / 1500 * 255).astype(np.uint8)
    assert check_coverage(*volumes(grey, body), None).name == "coverage"
    assert check_coverage(*volumes(CT + 1024, body), None).name == "coverage"
    assert check_coverage(*volumes(CT + 1024, LUNGS), None) is None
