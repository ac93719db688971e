"""The check of a dozen slices, on generated volumes that are named as the paper's."""

import re
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import chest, save_nifti, tiny_sam

from sam_lungs.data import zenodo
from sam_lungs.segmenters import checkpoints, registry
from sam_lungs.segmenters.base import Decoded
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.summary import reproduction
from sam_lungs.summary.published import published_slices
from sam_lungs.summary.reproduction import MARGIN, SLICES, check_reproduction, verdict
from sam_lungs.utils.errors import InputError

IMAGE, MASKS = (array[:, :, 1] for array in chest(80, 96, 2))
DICE = published_slices().set_index(["image", "slice"])["dice"]


class PublishedSegmenter:
    """Predicts part of the lung, so that the Dice score is the published one of each slice."""

    device = torch.device("cpu")
    identity = {"model": "published", "weights": {}}  # noqa: RUF012
    prompt_kinds = frozenset(("points", "negative", "box"))

    def __init__(self):
        self.left = list(SLICES)

    def prepare(self, image_rgb: np.ndarray, in_window: None = None) -> torch.Tensor:
        return torch.from_numpy(image_rgb[:, :, :1].transpose(2, 0, 1).copy())

    def encode(self, pictures):
        return (torch.stack(list(pictures)),)

    def decode(self, embeddings, size_rc, prompts, mask_logits=None) -> Decoded:
        grey = embeddings[0]
        lung = torch.nonzero(((grey > 0) & (grey < 100)).flatten()).flatten()
        dice = DICE[self.left.pop(0)]
        masks = torch.zeros(grey.numel(), dtype=torch.bool)
        masks[lung[: round(dice * len(lung) / (2 - dice))]] = True
        return Decoded(masks.reshape(1, 1, *size_rc), torch.ones(1, 1), torch.zeros(1, 1, 1, 1))

    def batch_size(self) -> int:
        return 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A volume for each name of SLICES, with lung in its slices of SLICES."""
    folder = tmp_path_factory.mktemp("zenodo")
    slices = {name: [index for other, index in SLICES if other == name] for name, _ in SLICES}
    for name, indices in slices.items():
        image = np.full((*IMAGE.shape, max(indices) + 1), -1000, np.int16)
        masks = np.zeros(image.shape, np.uint8)
        for index in indices:
            image[:, :, index], masks[:, :, index] = IMAGE, MASKS
        for part, array in zip(zenodo.ARCHIVES, (image, masks), strict=True):
            (folder / part).mkdir(exist_ok=True)
            save_nifti(folder / part / f"{name}.nii.gz", array)
    return folder


def check(folder, monkeypatch, capsys, segmenter) -> tuple[int, list[str]]:
    monkeypatch.setattr(reproduction, "load_segmenters", lambda options: [segmenter])
    status = check_reproduction(folder=folder)
    return status, capsys.readouterr().out.splitlines()


def test_masks_of_the_published_dice_are_reproduced(folder, monkeypatch, capsys):
    status, lines = check(folder, monkeypatch, capsys, PublishedSegmenter())
    assert status == 0
    assert re.match(r"12 slices, about \d+:\d\d:\d\d at [\d.]+ s each", lines[0])
    rows = [line.split() for line in lines[2:-1]]
    assert [(name, int(index)) for name, index, *_ in rows] == list(SLICES)
    for name, index, *numbers in rows:
        published, here, difference = map(float, numbers[3:])
        assert published == round(DICE[name, int(index)], 4)
        assert here - published == pytest.approx(difference, abs=1.1e-4)
        assert abs(difference) < MARGIN / 4
    assert lines[-1].startswith(f"Reproduced: 12 of 12 slices are within {MARGIN} of the published")


def test_seeded_weights_are_not_reproduced(folder, monkeypatch, capsys):
    segmenter = SamSegmenter(tiny_sam(), torch.device("cpu"))
    status, lines = check(folder, monkeypatch, capsys, segmenter)
    assert status == 1
    assert len(lines) == 2 + len(SLICES) + 1
    assert re.match(r"Not reproduced: \d of 12 slices", lines[-1])


def test_the_dataset_and_the_weights_are_fetched_first(monkeypatch):
    """The weights by `load_segmenters`, as in every study."""

    def raise_error(*_):
        raise InputError(done.pop())

    done = ["weights", "dataset"]
    monkeypatch.setattr(sys, "argv", ["reproduction"])
    monkeypatch.setattr(zenodo, "fetch", raise_error)
    with pytest.raises(InputError, match="dataset"):
        reproduction.main()
    monkeypatch.setattr(zenodo, "fetch", lambda: None)
    monkeypatch.setattr(checkpoints, "fetch", raise_error)
    registry.identify.cache_clear()
    with pytest.raises(InputError, match="weights"):
        reproduction.main()


def test_a_volume_of_fewer_slices_is_refused(folder, monkeypatch, capsys, tmp_path):
    image, masks = chest()
    for part, array in zip(zenodo.ARCHIVES, (image, masks), strict=True):
        (tmp_path / part).mkdir()
        save_nifti(tmp_path / part / "coronacases_001.nii.gz", array)
    with pytest.raises(InputError, match="no slice 85; give 0 to 2"):
        check(tmp_path, monkeypatch, capsys, PublishedSegmenter())


@pytest.mark.parametrize(
    ("jaccard", "dice", "start"),
    [
        (MARGIN, -MARGIN, "Reproduced: 2 of 2"),
        (MARGIN * 1.01, 0, "Not reproduced: 1 of 2"),
        (0, -MARGIN * 1.01, "Not reproduced: 1 of 2"),
    ],
)
def test_every_slice_must_be_within_the_margin(jaccard, dice, start):
    table = pd.DataFrame(
        {
            "image": ["a", "b"],
            "slice": [3, 4],
            "jaccard_difference": [0, jaccard],
            "dice_difference": [0, dice],
        }
    )
    line = verdict(table)
    assert line.startswith(start)
    assert "b, slice 4, differs most" in line


def test_half_of_the_slices_are_of_each_half_of_the_dataset_and_published():
    halves = [name.partition("_")[0] for name, _ in SLICES]
    assert halves.count("coronacases") == halves.count("radiopaedia") == 6
    assert DICE[list(SLICES)].notna().all()
