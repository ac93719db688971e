"""Negative points of one's own and chosen layers, from the command line to the files."""

import json

import cv2
import yaml
from conftest import assert_refused, chest, save_nifti


def test_negative_points_are_recorded_and_only_chosen_layers_drawn(run, tmp_path):
    image, masks = chest()
    paths = [
        save_nifti(tmp_path / "image_a.nii.gz", image),
        save_nifti(tmp_path / "masks.nii.gz", masks),
    ]
    command = ["process_image.py", "-i", paths[0], "-m", paths[1], "--model", "compact", "--debug"]
    done = run(*command, "--negative", "20,28", "0,55", "--draw", "points,box")
    assert done.returncode == 0, done.stderr
    results = tmp_path / "results/image_a"
    record = json.loads((results / "run.json").read_text())
    assert record["protocol"]["negative"] == [[20, 28], [0, 55]]
    assert record["options"]["draw"] == ["points", "box"]
    points = yaml.safe_load((results / "debug/slice_2_prompt.yml").read_text())["points"]
    assert points[2:] == [
        {"row": 20, "column": 28, "label": 0},
        {"row": 0, "column": 55, "label": 0},
    ]
    picture = cv2.imread(str(results / "debug/slice_2_prediction.png"))
    assert (picture == (0, 0, 255)).all(axis=2).any()  # BGR
    assert not (picture == (0, 255, 0)).all(axis=2).any()


def test_negative_points_outside_a_slice_are_refused(run, tmp_path):
    image, masks = chest(40, 56)
    paths = [
        save_nifti(tmp_path / "image_a.nii.gz", image),
        save_nifti(tmp_path / "masks.nii.gz", masks),
    ]
    command = ["process_image.py", "-i", paths[0], "-m", paths[1], "--model", "compact"]
    assert_refused(
        run(*command, "--negative", "39,55", "40,0", "0,56"),
        *(str(paths[0]), "no pixel 40,0 0,56 in a slice of 40 x 56", "0,0 to 39,55"),
    )
    assert not (tmp_path / "results").exists()
    done = run(*command, "--negative", "39,55", "--slice", "2")
    assert done.returncode == 0, done.stderr
