"""From the files of a run with a tiny SAM to pictures of it."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import chest, save_nifti, tiny_sam
from matplotlib.colors import to_rgba
from PIL import Image

from sam_lungs.data.volumes import read_nifti, write_numpy
from sam_lungs.data.windowing import LUNG_WINDOW
from sam_lungs.prompts.rules import PromptProtocol
from sam_lungs.segmenters import checkpoints
from sam_lungs.study.options import Options
from sam_lungs.study.run import Study
from sam_lungs.summary.overlays import (
    CONTOUR_RGB,
    GIF_FRAMES,
    GIF_WIDTH,
    draw_extremes,
    read_processed,
    save_animation,
)
from sam_lungs.utils.errors import InputError

IMAGE, MASKS = chest(slices=6)


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """A file of weights that is loaded as a tiny SAM."""
    path = tmp_path / "tiny.pth"
    path.write_bytes(b"weights")
    monkeypatch.setattr(checkpoints, "load_sam", lambda *_, **__: tiny_sam())
    return path


@pytest.fixture
def pair(tmp_path):
    return (
        save_nifti(tmp_path / "image_a.nii.gz", IMAGE),
        save_nifti(tmp_path / "masks_a.nii.gz", MASKS),
    )


@pytest.fixture
def process(weights, tmp_path):
    """Process an image and its masks, by default as the paper; return the results folder."""

    def run(image, masks, **options):
        options = {"checkpoint": weights, "device": "cpu", "save_masks": True} | options
        options["overwrite"] = True
        assert Study(Options(**options)).run([image], [masks]) == 0
        return tmp_path / "results" / image.name.partition(".")[0]

    return run


def test_what_is_read_back_is_what_was_processed(pair, process):
    protocol = PromptProtocol(box=False)
    folder = process(*pair, protocols={"": protocol})
    volume = read_processed(folder)
    np.testing.assert_array_equal(volume.image.array, IMAGE)
    np.testing.assert_array_equal(volume.masks.array, MASKS)
    assert volume.protocol == protocol
    assert volume.window == LUNG_WINDOW
    areas = volume.table["predicted_pixels"].fillna(0)
    np.testing.assert_array_equal(volume.predicted.sum(axis=(0, 1)), areas)
    assert read_processed(process(*pair, window="none")).window is None


def test_predicted_masks_lie_on_an_image_that_was_turned(pair, process, tmp_path):
    turned = []
    for path in pair:
        volume = read_nifti(path, "radiological")
        turned.append(tmp_path / path.name.replace(".nii.gz", ".npy"))
        write_numpy(volume, turned[-1])
    volume = read_processed(process(*turned))
    assert volume.image.geometry.orientation == "PLS"
    table = volume.table.dropna(subset=["dice"])
    for row in table.itertuples():
        true = volume.masks.array[:, :, row.slice] > 0
        predicted = volume.predicted[:, :, row.slice]
        areas = true.sum() + predicted.sum()
        assert 2 * (true & predicted).sum() / areas == pytest.approx(row.dice)


def test_worst_median_and_best_slice_are_side_by_side(pair, process):
    folder = process(*pair)
    of_lung = pd.read_csv(folder / "raw_data.csv").dropna().sort_values("dice", kind="stable")
    assert len(of_lung) == 5
    figure = draw_extremes(read_processed(folder))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        f"{name}: slice {row.slice}, Dice {row.dice:.3f}"
        for name, row in zip(
            ("worst", "median", "best"), of_lung.iloc[[0, 2, 4]].itertuples(), strict=True
        )
    ]
    for axes, row in zip(figure.axes, of_lung.iloc[[0, 2, 4]].itertuples(), strict=True):
        _, predicted = axes.images
        assert np.count_nonzero(predicted.get_array()[..., 3]) == row.predicted_pixels
        # Two lungs and the negative point between them, and the box.
        assert [to_rgba(line.get_color()) for line in axes.lines] == [
            to_rgba(name) for name in ("limegreen", "limegreen", "red")
        ]
        assert len(axes.patches) == 1
    without_box = read_processed(process(*pair, protocols={"": PromptProtocol(box=False)}))
    assert len(draw_extremes(without_box).axes) == 3


def test_a_volume_with_one_slice_with_lung_is_drawn(process, tmp_path):
    image = save_nifti(tmp_path / "image_b.nii.gz", IMAGE[:, :, :2])
    masks = save_nifti(tmp_path / "masks_b.nii.gz", MASKS[:, :, :2])
    figure = draw_extremes(read_processed(process(image, masks)))
    assert all("slice 1," in axes.get_title() for axes in figure.axes)


def test_the_animation_goes_through_the_slices(pair, process, tmp_path):
    folder = process(*pair)
    paths = tmp_path / "new" / "a.gif", tmp_path / "new" / "again.gif"
    for path in paths:
        save_animation(read_processed(folder), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert sorted(paths[0].parent.iterdir()) == sorted(paths)
    with Image.open(paths[0]) as animation:
        assert animation.format == "GIF"
        assert animation.n_frames == IMAGE.shape[2]
        for index in range(animation.n_frames):
            animation.seek(index)
            assert animation.info["duration"] == 100
            frame = np.asarray(animation.convert("RGB"))
            contour = (frame == CONTOUR_RGB).all(axis=2)
            assert contour.any() == MASKS[:, :, index].any()


def test_a_large_volume_makes_a_small_animation(process, tmp_path):
    # Rows are twice as far apart as columns; a slice stands out as a constant of its own.
    slices, affine = 2 * GIF_FRAMES + 5, np.diag([-0.5, -1, 2, 1])
    image = np.full((40, 2 * GIF_WIDTH, slices), -1000, np.int16)
    image[5:, 5:] = 0
    masks = np.zeros(image.shape, np.uint8)
    masks[10:30, 100:300, -1] = 1
    paths = (
        save_nifti(tmp_path / "image_c.nii.gz", image, affine),
        save_nifti(tmp_path / "masks_c.nii.gz", masks, affine),
    )
    save_animation(read_processed(process(*paths)), tmp_path / "c.gif")
    with Image.open(tmp_path / "c.gif") as animation:
        assert animation.size == (GIF_WIDTH, 40)
        assert animation.n_frames == GIF_FRAMES
        animation.seek(GIF_FRAMES - 1)
        frame = np.asarray(animation.convert("RGB"))
    contour = np.argwhere((frame == CONTOUR_RGB).all(axis=2))
    np.testing.assert_array_equal(contour.min(axis=0), (10, 50))
    np.testing.assert_array_equal(contour.max(axis=0), (29, 149))


def test_without_masks_or_a_record_there_is_nothing_to_draw(pair, process):
    folder = process(*pair, save_masks=False)
    for _ in range(2):
        assert read_processed(folder) is None
        # As the authors' published folders.
        (folder / "run.json").unlink(missing_ok=True)


@pytest.mark.parametrize("name", ["image_a.nii.gz", "masks_a.nii.gz"])
def test_an_input_that_is_gone_or_has_changed_is_refused(pair, process, tmp_path, name):
    folder = process(*pair)
    path = tmp_path / name
    save_nifti(path, IMAGE + 1)
    with pytest.raises(InputError, match=f"{name}: has changed since .*run.json"):
        read_processed(folder)
    path.unlink()
    with pytest.raises(InputError, match=f"{name}: no such file"):
        read_processed(folder)


def test_predicted_masks_of_another_run_are_refused(pair, process, tmp_path):
    folder = process(*pair)
    path = folder / "predicted_masks.nii.gz"
    path.unlink()
    with pytest.raises(InputError, match=r"predicted_masks\.nii\.gz: no such file"):
        read_processed(folder)
    for other in (MASKS, MASKS[:, :, 1:], MASKS[1:]):
        save_nifti(path, other)
        with pytest.raises(InputError, match=r"predicted_masks\.nii\.gz: not of the run"):
            read_processed(folder)


def test_a_broken_record_is_refused(pair, process):
    folder = process(*pair)
    record = json.loads((folder / "run.json").read_text())
    del record["protocol"]
    for text in ("{", "[]", json.dumps(record)):
        (folder / "run.json").write_text(text)
        with pytest.raises(InputError, match=r"run\.json: not the record of a run"):
            read_processed(folder)
