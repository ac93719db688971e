"""The study of the paper's chest X-rays, on generated ones in their folder layout."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import ROOT

from sam_lungs.data.case import read_case
from sam_lungs.data.manifest import read_dataset
from sam_lungs.data.nifti import PAPER_AXES
from sam_lungs.data.volume import Geometry
from sam_lungs.data.windowing import slice_to_rgb
from sam_lungs.prompts.protocols import PromptProtocol
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.study.pictures import pixel_aspect, upright

SIZES = {"MCUCXR_0001_0": (489, 402), "MCUCXR_0002_0": (402, 489)}
# Middle and half axes of each ellipse, as a share of rows and columns.
LUNGS = {"leftMask": ((0.5, 0.3), (0.3, 0.14)), "rightMask": ((0.45, 0.72), (0.25, 0.1))}


def make_xray(rows: int, columns: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return an X-ray of 12 bits, uint16, and its masks by folder, 0 and 255."""
    image = np.full((rows, columns), 3000, np.uint16)
    masks = {}
    for folder, ((row, column), (height, width)) in LUNGS.items():
        masks[folder] = np.zeros((rows, columns), np.uint8)
        middle = round(column * columns), round(row * rows)
        axes = round(width * columns), round(height * rows)
        cv2.ellipse(masks[folder], middle, axes, 0, 0, 360, 255, cv2.FILLED)
        image[masks[folder] > 0] = 1200
    image += np.random.default_rng(0).integers(0, 1000, image.shape, np.uint16)
    return image, masks


def write_dataset(folder, sizes):
    """Write X-rays of these sizes, and the dataset file beside them; return its path."""
    for name, size in sizes.items():
        image, masks = make_xray(*size)
        pictures = {"CXR_png": image} | {f"ManualMask/{side}": mask for side, mask in masks.items()}
        for of, pixels in pictures.items():
            path = folder / "montgomery/MontgomerySet" / of / f"{name}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), pixels, [cv2.IMWRITE_PNG_COMPRESSION, 0])
    return Path(shutil.copy(ROOT / "datasets/montgomery.yml", folder))


@pytest.mark.parametrize("name", SIZES)
def test_x_rays_are_treated_as_by_the_authors(tmp_path, name):
    (files,) = read_dataset(write_dataset(tmp_path, SIZES), [name]).cases
    case = read_case(files)
    assert case.findings == []
    image, masks = make_xray(*SIZES[name])
    assert 255 < image.max() < 4096
    labels = (masks["leftMask"] > 0) + 2 * (masks["rightMask"] > 0)
    np.testing.assert_array_equal(case.image.array[:, :, 0], image)
    np.testing.assert_array_equal(case.masks.array[:, :, 0], labels)
    assert case.image.geometry.spacing_mm[:2] == (0.0875, 0.0875)

    assert case.window is None
    rgb = slice_to_rgb(case.image.array[:, :, 0], case.window)
    values = image.astype(np.float64)
    values = (values - values.min()) / (values.max() - values.min()) * 255
    np.testing.assert_array_equal(rgb[:, :, 0], values.astype(np.uint8))

    prompts = make_prompts(case.masks.array[:, :, 0], PromptProtocol())
    assert prompts.labels.tolist() == [1, 1, 0]
    first, second, negative = prompts.points_rc
    assert labels[tuple(first)] == 1
    assert labels[tuple(second)] == 2
    # The left of the image.
    assert first[1] < second[1]
    lung_rc = np.argwhere(labels)
    (top, left), (bottom, right) = lung_rc.min(axis=0), lung_rc.max(axis=0)
    assert np.abs(prompts.box_rc - [top, left, bottom, right]).max() <= 1
    assert np.abs(negative - [(top + bottom) / 2, (left + right) / 2]).max() <= 1


def test_a_spacing_without_an_orientation_turns_no_picture():
    geometry = Geometry(np.diag([0.0875, 0.0875, 1, 1]), (4, 3, 1), PAPER_AXES, is_oriented=False)
    np.testing.assert_array_equal(upright(geometry), upright(None))
    assert pixel_aspect(geometry) == 1


def test_the_study_of_an_x_ray_of_full_size(run, tmp_path):
    dataset = write_dataset(tmp_path, {"MCUCXR_0104_1": (4020, 4892)})
    done = run(
        "process_image.py",
        *("--dataset", dataset, "--model", "compact"),
        *("--device", "cpu", "--output_folder", tmp_path / "out"),
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.startswith("MCUCXR_0104_1: 1 of 1 slice,")
    assert done.stderr.count("\n") == 1
    assert (tmp_path / "out/MCUCXR_0104_1/raw_data.csv").exists()
