"""A value of a map is what `process_image.py --prompts_file` gives for the same prompts."""

import numpy as np
import pandas as pd
import pytest
from conftest import chest, save_nifti

from sam_lungs.prompts.grid import click_alone, with_click
from sam_lungs.prompts.protocols import PROTOCOLS
from sam_lungs.prompts.rules import make_prompts

IMAGE, MASKS = chest(rows=64, columns=96, slices=2)


@pytest.mark.parametrize("alone", [False, True])
def test_the_map_is_that_of_the_prompts_in_a_file_to_the_bit(run, tmp_path, alone):
    pair = [
        *("-i", save_nifti(tmp_path / "image_a.nii.gz", IMAGE)),
        *("-m", save_nifti(tmp_path / "masks_a.nii.gz", MASKS)),
        *("--model", "compact", "--device", "cpu", "--output_folder", tmp_path / "out"),
    ]
    options = ["--step_pixels", 24, *(["--alone"] if alone else [])]
    done = run("explore_prompts.py", "map", *pair, *options)
    assert done.returncode == 0, done.stderr
    table = pd.read_csv(tmp_path / "out" / "explore" / "map" / "image_a" / "values.csv")
    clicks = table[(table["slice"] == 1) & (table["object"] == "all")].reset_index()
    assert len(clicks) > 4
    protocol = make_prompts(MASKS[:, :, 1], PROTOCOLS["paper"])
    rows = []
    for number, click in clicks.iterrows():
        point_rc = np.array([click["row"], click["column"]])
        prompts = click_alone(point_rc) if alone else with_click(protocol, point_rc)
        for (row, column), label in zip(prompts.points_rc, prompts.labels, strict=True):
            rows.append((number, "positive" if label else "negative", row, column, "", ""))
        if prompts.box_rc is not None:
            rows.append((number, "box", *prompts.box_rc))
    # A rater for each click, because a slice is prompted once by a rater.
    lines = [f"image_a,1,{kind},{r},{c},{r2},{c2},rater_{n}" for n, kind, r, c, r2, c2 in rows]
    header = "case,slice,kind,row,column,row2,column2,rater"
    (tmp_path / "clicks.csv").write_text("\n".join([header, *lines]) + "\n")
    done = run("process_image.py", *pair, "--prompts_file", tmp_path / "clicks.csv")
    assert done.returncode == 0, done.stderr
    for number, click in clicks.iterrows():
        folder = tmp_path / "out" / f"rater_{number}" / "image_a"
        of_slice = pd.read_csv(folder / "raw_data.csv", index_col="slice").loc[1]
        assert of_slice["dice"] == click["dice"]
        assert of_slice["jaccard"] == click["jaccard"]
