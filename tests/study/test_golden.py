"""The tables of a tiny study: they may change only together with NUMBERS_VERSION.

To accept new numbers, increase NUMBERS_VERSION in sam_lungs/study/run_record.py and replace GOLDEN
by the value that the failed test prints. Values are rounded, because processors differ in the last
digits.
"""

import pytest
from conftest import save_nifti

from sam_lungs.study.options import Options
from sam_lungs.study.results import read_empty_slices, read_raw_data, read_volume_metrics
from sam_lungs.study.run import run_study
from sam_lungs.study.run_record import NUMBERS_VERSION
from sam_lungs.synthetic.phantom import phantom_volume

PROTOCOLS = ("paper", "points", "contours_no_box")
GOLDEN = {
    "paper": [
        [1.0, 0.87, 0.931, 0.863, 174.0, 5.0, 0.806, 4.048, 4.048],
        [2.0, 0.819, 0.901, 0.868, 456.0, 5.0, 0.708, 8.097, 8.097],
        [3.0, 0.907, 0.951, 0.922, 1003.0, 5.0, 0.755, 38.406, 38.406],
        [4.0, 0.865, 0.928, 0.915, 1072.0, 5.0, 0.666, 12.145, 12.145],
        [5.0, 0.924, 0.96, 0.933, 1282.0, 5.0, 0.736, 9.052, 9.052],
        [6.0, 0.93, 0.964, 0.929, 934.0, 5.0, 0.748, 4.048, 4.048],
        [7.0, 0.854, 0.921, 0.916, 438.0, 5.0, 0.67, 8.097, 8.097],
        [0.943, 0.937, 0.882, 16.194, 16.194],
        [0, 1],
        [8, 7],
    ],
    "points": [
        [1.0, 0.844, 0.916, 0.867, 174.0, 2.0, 0.752, 97.33, 97.33],
        [2.0, 0.831, 0.908, 0.885, 456.0, 2.0, 0.689, 70.702, 70.702],
        [3.0, 0.892, 0.943, 0.902, 1003.0, 2.0, 0.711, 36.436, 36.436],
        [4.0, 0.868, 0.929, 0.9, 1072.0, 2.0, 0.668, 12.145, 12.145],
        [5.0, 0.91, 0.953, 0.916, 1282.0, 2.0, 0.705, 12.145, 12.145],
        [6.0, 0.933, 0.965, 0.919, 934.0, 2.0, 0.758, 4.048, 4.048],
        [7.0, 0.846, 0.917, 0.917, 438.0, 2.0, 0.637, 5.725, 5.725],
        [0.941, 0.933, 0.863, 25.604, 25.604],
        [0, 1],
        [8, 7],
    ],
    "contours_no_box": [
        [1.0, 0.828, 0.906, 0.867, 174.0, 3.0, 0.724, 102.497, 102.497],
        [2.0, 0.816, 0.899, 0.549, 456.0, 12.0, 0.71, 66.399, 66.399],
        [3.0, 0.894, 0.944, 0.904, 1003.0, 3.0, 0.717, 36.436, 36.436],
        [4.0, 0.869, 0.93, 0.897, 1072.0, 4.0, 0.667, 12.145, 12.145],
        [5.0, 0.909, 0.952, 0.915, 1282.0, 3.0, 0.701, 12.145, 12.145],
        [6.0, 0.933, 0.965, 0.923, 934.0, 3.0, 0.754, 4.048, 4.048],
        [7.0, 0.855, 0.922, 0.919, 438.0, 3.0, 0.657, 5.725, 5.725],
        [0.94, 0.932, 0.868, 39.534, 39.534],
        [0, 1],
        [8, 7],
    ],
}


@pytest.fixture(scope="module")
def numbers(tmp_path_factory) -> dict[str, list]:
    """The rounded numbers of one phantom of 9 slices, by prompt protocol."""
    folder = tmp_path_factory.mktemp("golden")
    image, masks, affine = phantom_volume(11, 1, 9, "hounsfield", (96, 96))
    paths = []
    for name, array in (("image", image), ("masks", masks)):
        paths.append(save_nifti(folder / f"{name}_1.nii.gz", array, affine))
    status = run_study(
        Options(
            [paths[0]],
            [paths[1]],
            model="compact",
            device="cpu",
            prompts=PROTOCOLS,
            metrics=("nsd", "hd95", "lung_slices_dice", "dice_3d", "nsd_3d", "hd95_3d"),
            empty_slices="nearest",
            output_folder=folder / "out",
        )
    )
    assert status == 0
    found = {}
    for protocol in PROTOCOLS:
        results = folder / "out" / protocol / "image_1"
        table = read_raw_data(results / "raw_data.csv").dropna().astype(float)
        found[protocol] = table.drop(columns="predicted_pixels").round(3).to_numpy().tolist()
        of_volume = read_volume_metrics(results)
        found[protocol].append([round(value, 3) for value in of_volume.values()])
        empty = read_empty_slices(results)[["slice", "prompted_as"]]
        found[protocol] += empty.to_numpy().tolist()
    return found


def test_numbers_change_only_with_their_version(numbers):
    assert NUMBERS_VERSION == 3
    assert numbers.keys() == GOLDEN.keys(), f"GOLDEN = {numbers!r}"
    for protocol, rows in GOLDEN.items():
        assert len(numbers[protocol]) == len(rows), f"GOLDEN = {numbers!r}"
        for row, golden in zip(numbers[protocol], rows, strict=True):
            assert row == pytest.approx(golden, rel=0.01, abs=0.002), f"GOLDEN = {numbers!r}"
