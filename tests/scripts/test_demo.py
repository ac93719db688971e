"""The commands of `scripts/demo.py`, on smaller phantoms."""

import pandas as pd
import pytest

# Results of the repository's checkpoint; other processors may differ in the last digits.
LUNG_SLICES = [6, 5]
DICE = [0.9377, 0.9687]


def test_phantoms_are_made_converted_segmented_and_reported(run, tmp_path):
    phantom = tmp_path / "phantom"
    done = run(
        "sam_lungs.synthetic.phantom",
        *("--output_folder", phantom, "--cases", 2, "--slices", 6, "--seed", 0),
    )
    assert done.returncode == 0, done.stderr
    names = ["phantom_001", "phantom_002"]
    images = [tmp_path / f"image_{name}.npy" for name in names]
    masks = [tmp_path / f"masks_{name}.npy" for name in names]
    niftis = [
        phantom / folder / f"{name}.nii.gz" for folder in ("CT", "Lung_Mask") for name in names
    ]
    done = run("nifti_to_numpy.py", "-i", *niftis, "-o", *images, *masks)
    assert done.returncode == 0, done.stderr
    done = run(
        "process_image.py",
        *("-i", *images, "-m", *masks, "--model", "compact", "--device", "cpu"),
        *("--debug", "--save_masks"),
    )
    assert done.returncode == 0, done.stderr
    for script in ("join_results.py", "make_report.py"):
        done = run(script, "-r", tmp_path / "results")
        assert done.returncode == 0, done.stderr
    page = (tmp_path / "results" / "report.html").read_text()
    # Three figures, two figures of slices, an animation and its still picture, and a picture of
    # each slice.
    assert page.count("data:image/") == 3 + 2 + 2 + sum(LUNG_SLICES)

    volumes = pd.read_csv(tmp_path / "results" / "joint_results.csv")
    assert volumes["image"].tolist() == ["image_phantom_001", "image_phantom_002"]
    assert volumes["slices"].tolist() == [6, 6]
    assert volumes["lung_slices"].tolist() == LUNG_SLICES
    assert volumes["dice_avg"].tolist() == pytest.approx(DICE, abs=0.002)
    assert len(list(tmp_path.rglob("slice_*_prediction.png"))) == sum(LUNG_SLICES)
