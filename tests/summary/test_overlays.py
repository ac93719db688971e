"""Pictures of a processed volume are made from its files."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
from conftest import chest, save_nifti
from matplotlib.colors import to_rgba
from PIL import Image
from results_folders import RECORD, write_volume

from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.case import read_case
from sam_lungs.data.case_files import CaseFiles, Reading
from sam_lungs.data.nifti import read_nifti, write_nifti
from sam_lungs.data.windowing import LUNG_WINDOW
from sam_lungs.prompts.protocols import PromptProtocol
from sam_lungs.study.layout import MASKS_NAME
from sam_lungs.study.metrics import overlap
from sam_lungs.study.results import SliceResult
from sam_lungs.summary import overlays
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
PAPER = PromptProtocol()


@pytest.fixture
def pair(tmp_path):
    return (
        save_nifti(tmp_path / "image_a.nii.gz", IMAGE),
        save_nifti(tmp_path / "masks_a.nii.gz", MASKS),
    )


@pytest.fixture
def process(tmp_path):
    """Write the results folder of a model that predicts the reference mask, moved by a row."""

    def run(image_path, masks_path, protocol=PAPER, window="auto", save_masks=True):
        folder = tmp_path / "results" / image_path.name.partition(".")[0]
        case = read_case(CaseFiles(image_path, (masks_path,), Reading(window=window)))
        reference = case.masks.array != 0
        predicted = np.roll(reference, 1, axis=0)
        slices = []
        for index in range(reference.shape[2]):
            both = overlap(predicted[:, :, index], reference[:, :, index])
            if both.reference:
                row = (index, both.jaccard, both.dice, 0.9, both.reference, both.predicted)
            else:
                row = (index, None, None, None, 0, None)
            slices.append(SliceResult(*row))
        if save_masks:
            write_nifti(predicted.astype(np.uint8), case.image.geometry, folder / MASKS_NAME)
        record = replace(
            RECORD,
            image=case.image.identity,
            masks=case.masks_identities,
            protocol=asdict(protocol),
            reading={"window": window},
        )
        write_volume(folder, slices, record)
        return folder

    return run


def test_reading_returns_what_was_processed(pair, process):
    protocol = PromptProtocol(box=False)
    folder = process(*pair, protocol=protocol)
    volume = read_processed(folder)
    np.testing.assert_array_equal(volume.case.image.array, IMAGE)
    np.testing.assert_array_equal(volume.case.masks.array, MASKS)
    assert volume.protocol == protocol
    assert volume.case.window == LUNG_WINDOW
    areas = volume.table["predicted_pixels"].fillna(0)
    np.testing.assert_array_equal(volume.predicted.sum(axis=(0, 1)), areas)
    assert read_processed(process(*pair, window="none")).case.window is None


def test_predicted_masks_are_turned_like_a_converted_image(pair, process, tmp_path):
    turned = []
    for path in pair:
        volume = read_nifti(path, "radiological")
        turned.append(tmp_path / path.name.replace(".nii.gz", ".npy"))
        write_numpy(volume, turned[-1])
    volume = read_processed(process(*turned))
    assert volume.case.image.geometry.orientation == "PLS"
    table = volume.table.dropna(subset=["dice"])
    for row in table.itertuples():
        reference = volume.case.masks.array[:, :, row.slice] > 0
        predicted = volume.predicted[:, :, row.slice]
        areas = reference.sum() + predicted.sum()
        assert 2 * (reference & predicted).sum() / areas == pytest.approx(row.dice)


def test_worst_median_and_best_slice_are_drawn_side_by_side(pair, process):
    folder = process(*pair)
    with_lung = (
        pd.read_csv(folder / "raw_data.csv")
        .dropna(subset="dice")
        .sort_values("dice", kind="stable")
    )
    assert len(with_lung) == 5
    figure = draw_extremes(read_processed(folder))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == [
        f"{name}: slice {row.slice}, Dice {row.dice:.3f}"
        for name, row in zip(
            ("worst", "median", "best"), with_lung.iloc[[0, 2, 4]].itertuples(), strict=True
        )
    ]
    for axes, row in zip(figure.axes, with_lung.iloc[[0, 2, 4]].itertuples(), strict=True):
        _, predicted = axes.images
        assert np.count_nonzero(predicted.get_array()[..., 3]) == row.predicted_pixels
        # A point in each lung, the negative point between them, and the box.
        assert [to_rgba(line.get_color()) for line in axes.lines] == [
            to_rgba(name) for name in ("limegreen", "limegreen", "red")
        ]
        assert len(axes.patches) == 1
    without_box = read_processed(process(*pair, protocol=PromptProtocol(box=False)))
    assert len(draw_extremes(without_box).axes) == 3


def test_a_volume_with_one_slice_with_lung_is_drawn(process, tmp_path):
    image = save_nifti(tmp_path / "image_b.nii.gz", IMAGE[:, :, :2])
    masks = save_nifti(tmp_path / "masks_b.nii.gz", MASKS[:, :, :2])
    figure = draw_extremes(read_processed(process(image, masks)))
    assert all("slice 1," in axes.get_title() for axes in figure.axes)


def test_the_animation_shows_all_slices(pair, process, tmp_path):
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


def test_the_animation_of_a_large_volume_is_small(process, tmp_path):
    # Rows are twice as far apart as columns.
    slices, affine = 2 * GIF_FRAMES + 5, np.diag([-0.5, -1, 2, 1])
    image = np.full((40, 2 * GIF_WIDTH, slices), -1000, np.int16)
    image[5:, 5:] = 0
    image[10:30, 100:300, -1] = -800
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


def test_the_files_are_read_as_in_the_run(pair, process, monkeypatch):
    folder = process(*pair)
    reading = {
        "window": "-650,1500",
        "align": "voxels",
        "objects": {"left": [2], "right": [1]},
        "spacing_mm": [0.8, 0.7],
        "series": None,
    }
    findings = [
        {"name": "saturated", "message": "a: b", "is_allowed": True},
        {"name": "offset", "message": "a: b", "is_allowed": False},
    ]
    path = folder / "run.json"
    record = json.loads(path.read_text()) | {"reading": reading, "findings": findings}
    path.write_text(json.dumps(record))
    asked = []
    read = overlays.read_case
    monkeypatch.setattr(overlays, "read_case", lambda files: asked.append(files) or read(files))
    read_processed(folder)
    (files,) = asked
    assert (files.image_path, *files.masks_paths) == pair
    assert files.reading == Reading(
        window="-650,1500",
        align="voxels",
        objects={"left": (2,), "right": (1,)},
        spacing_mm=(0.8, 0.7),
        allow=("saturated",),
    )


def test_nothing_is_drawn_without_saved_masks_or_run_record(pair, process):
    folder = process(*pair, save_masks=False)
    assert read_processed(folder) is None
    # Like the authors' published folders.
    (folder / "run.json").unlink()
    assert read_processed(folder) is None


@pytest.mark.parametrize("name", ["image_a.nii.gz", "masks_a.nii.gz"])
def test_a_changed_or_missing_input_is_refused(pair, process, tmp_path, name):
    folder = process(*pair)
    path = tmp_path / name
    save_nifti(path, MASKS + 1)
    with pytest.raises(InputError, match=f"{name}: .*changed since .*run.json"):
        read_processed(folder)
    path.unlink()
    with pytest.raises(InputError, match=f"{name}: no such file"):
        read_processed(folder)


def test_predicted_masks_of_another_run_are_refused(pair, process):
    folder = process(*pair)
    path = folder / MASKS_NAME
    path.unlink()
    with pytest.raises(InputError, match=r"predicted_masks\.nii\.gz: missing"):
        read_processed(folder)
    for other in (MASKS, MASKS[:, :, 1:], MASKS[1:]):
        save_nifti(path, other)
        with pytest.raises(InputError, match=r"predicted_masks\.nii\.gz: .*changed since"):
            read_processed(folder)


def test_an_invalid_record_is_refused(pair, process):
    folder = process(*pair)
    record = json.loads((folder / "run.json").read_text())
    wrong = [{"image": {}}, {"reading": {"windows": "auto"}}, {"reading": {"objects": [1]}}]
    for text in ("{", "[]", *(json.dumps(record | change) for change in wrong)):
        (folder / "run.json").write_text(text)
        with pytest.raises(InputError, match=r"run\.json: not a run record"):
            read_processed(folder)
