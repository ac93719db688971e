import csv
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sam_lungs.study.results import EmptySlice, SliceResult, write_results
from sam_lungs.summary.join import Study, join_results, write_study
from sam_lungs.utils.errors import InputError

SLICES = [
    SliceResult(0, None, None, None, 0, None),
    SliceResult(1, 0.5, 2 / 3, 0.75, 10, 20),
    SliceResult(2, 0.25, 0.4, 0.1, 30, 7),
]


def rows(path) -> list[list[str]]:
    return list(csv.reader(path.read_text().splitlines()))


def join(results_folder, output_folder) -> Study:
    study = join_results(results_folder)
    write_study(study, output_folder)
    return study


def test_joined_tables_by_hand(tmp_path):
    write_results(tmp_path / "image_b", SLICES, {})
    write_results(tmp_path / "image_a", [SliceResult(0, 1.0, 1.0, 0.9, 5, 5)], {})
    study = join(tmp_path, tmp_path)
    assert len(study.slices) == 4
    assert (tmp_path / "joint_raw_data.csv").read_bytes() == (
        b"image,slice,jaccard,dice,score,lung_pixels,predicted_pixels\n"
        b"image_a,0,1.0,1.0,0.9,5,5\n"
        b"image_b,0,,,,0,\n"
        b"image_b,1,0.5,0.6666666666666666,0.75,10,20\n"
        b"image_b,2,0.25,0.4,0.1,30,7\n"
    )
    of_volumes = pd.read_csv(tmp_path / "joint_results.csv")
    assert of_volumes["image"].tolist() == ["image_a", "image_b"]
    assert of_volumes["slices"].tolist() == [1, 3]
    assert of_volumes["lung_slices"].tolist() == [1, 2]
    assert of_volumes["jaccard_avg"].tolist() == [1, 0.375]
    assert of_volumes["dice_max"].tolist() == [1, 2 / 3]
    assert study.summary["avg"][0] == pytest.approx((1 + 0.5 + 0.25) / 3)
    assert rows(tmp_path / "results.csv")[1][:3] == ["jaccard", "0.25", "1.0"]


def test_joining_again_gives_the_same(tmp_path):
    write_results(tmp_path / "image", SLICES, {})
    join(tmp_path, tmp_path)
    tables = {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")}
    assert len(tables) == 5
    join(tmp_path, tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")} == tables


def test_the_authors_numbers(real_data, tmp_path):
    summary = join(real_data / "published", tmp_path).summary.set_index("metric")
    assert summary.loc["jaccard", ["avg", "std"]].tolist() == [
        0.9027456965588987,
        0.14091775323280256,
    ]
    assert summary.loc["dice", ["avg", "std"]].tolist() == [0.9408425223198368, 0.11014111713012902]
    of_volumes = pd.read_csv(tmp_path / "joint_results.csv", index_col="image")
    published = pd.read_csv(real_data / "published" / "per_volume.csv", index_col="image")
    published.index = "image_" + published.index
    assert len(of_volumes) == 10
    for column in ("slices", "lung_slices", "jaccard_avg", "dice_avg"):
        given = published.loc[of_volumes.index, column]
        np.testing.assert_allclose(of_volumes[column], given, atol=5e-7)


def test_the_last_of_several_published_runs_counts(tmp_path):
    folder = tmp_path / "image"
    folder.mkdir()
    for time, value in (("2023-05-27_09-43-55", 0.5), ("2023-05-28_08-00-00", 0.75)):
        (folder / f"raw_data_{time}.csv").write_text(f"slice,jaccard,dice\n0,{value},{value}\n")
        (folder / f"results_{time}.csv").write_text("")
    assert join_results(tmp_path).summary["avg"].tolist() == [0.75, 0.75]


def test_slices_without_lung_are_counted_apart(tmp_path):
    found = [EmptySlice(0, 2, 0, 0.0), EmptySlice(1, 2, 10, 5.0)]
    write_results(tmp_path / "image_a", SLICES, {}, empty_slices=found)
    write_results(tmp_path / "image_b", SLICES, {})
    study = join(tmp_path, tmp_path)
    assert rows(tmp_path / "joint_empty_slices.csv") == [
        [
            "image",
            "slices_without_lung",
            "with_false_positives",
            "pixels_avg",
            "mm2_avg",
            "mm2_max",
        ],
        ["image_a", "2", "1", "5.0", "2.5", "5.0"],
    ]
    assert study.volumes["dice_avg"][0] == study.volumes["dice_avg"][1]
    write_results(tmp_path / "image_a", SLICES, {})
    join(tmp_path, tmp_path)
    assert not (tmp_path / "joint_empty_slices.csv").exists()


def test_a_metric_that_some_volumes_have_is_of_those(tmp_path):
    with_surface = [replace(one, nsd=0.5) for one in SLICES[1:]]
    write_results(tmp_path / "image_a", with_surface, {}, metrics=("nsd",))
    write_results(tmp_path / "image_b", SLICES, {})
    of_nsd = join(tmp_path, tmp_path).intervals.query("metric == 'nsd'").iloc[0]
    assert of_nsd[["volumes", "slices", "slice_avg"]].tolist() == [1, 2, 0.5]


def test_our_own_table_counts_before_a_published_one(tmp_path):
    folder = tmp_path / "image"
    write_results(folder, SLICES, {})
    (folder / "raw_data_2023-05-27_09-43-55.csv").write_text("slice,jaccard,dice\n0,0.1,0.2\n")
    assert join_results(tmp_path).summary["avg"][0] == 0.375


def test_folders_without_results_or_with_half_of_them_are_named_and_left_out(tmp_path, capsys):
    for name in ("image", "killed"):
        write_results(tmp_path / name, SLICES, {})
    (tmp_path / "killed" / "run.json").unlink()
    for name in ("empty", "figures"):
        (tmp_path / name).mkdir()
    left_out = join(tmp_path, tmp_path).left_out
    assert capsys.readouterr().err == "".join(f"warning: {problem}\n" for problem in left_out)
    assert [problem.split(":")[0] for problem in left_out] == [
        str(tmp_path / "empty"),
        str(tmp_path / "killed"),
    ]
    assert len(pd.read_csv(tmp_path / "joint_results.csv")) == 1


@pytest.mark.parametrize("text", ["", "a,b\n1,2\n", "slice,jaccard,dice\nx,y,z\n", "\0\xff\n"])
def test_a_table_of_something_else_is_refused(tmp_path, text):
    write_results(tmp_path / "results" / "image_a", SLICES, {})
    write_results(tmp_path / "results" / "image_b", SLICES, {})
    (tmp_path / "results" / "image_b" / "raw_data.csv").write_text(text)
    with pytest.raises(InputError, match="image_b"):
        join_results(tmp_path / "results")


def test_nothing_to_join_is_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(InputError, match=str(folder)):
            join_results(folder)
