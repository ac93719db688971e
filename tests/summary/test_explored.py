"""The tables of explorations of prompts, from folders on disk."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from explored_folders import explore
from results_folders import RECORD

from sam_lungs.study.explore.layout import SUMMARY_NAME, VALUES_NAME
from sam_lungs.summary.explored import differences, explored_table, read_explorations
from sam_lungs.summary.patients import Patients
from sam_lungs.summary.statistics import bootstrap_interval
from sam_lungs.utils.errors import InputError


def table_of(study, kind: str, run: str) -> pd.DataFrame:
    return explored_table(read_explorations(study).runs[kind][run]).set_index(
        ["quantity", "object"]
    )


def test_the_mean_is_over_patients(tmp_path):
    run = tmp_path / "explore" / "jitter" / "paper"
    explore(run / "a", {"mean_dice_sigma_2mm": 0.5}, "p1")
    explore(run / "b", {"mean_dice_sigma_2mm": 0.7}, "p1")
    explore(run / "c", {"mean_dice_sigma_2mm": 0.8})
    row = table_of(tmp_path, "jitter", "paper").loc["mean_dice_sigma_2mm", "all"]
    assert row["mean"] == pytest.approx((0.6 + 0.8) / 2, abs=1e-15)
    assert (row["patients"], row["volumes"]) == (2, 3)
    assert row[["low", "high", "sum"]].isna().all()


def test_the_interval_is_that_of_the_bootstrap_over_patients(tmp_path):
    values = [0.9, 0.8, 0.85, 0.7, 0.95, 0.6]
    for number, value in enumerate(values):
        explore(tmp_path / "explore/best" / f"volume_{number}", {"gain": value}, f"p{number}")
    row = table_of(tmp_path, "best", "vit_l without --prompts").loc["gain", "all"]
    assert (row["low"], row["high"]) == bootstrap_interval(np.mean, np.array(values))
    assert row["low"] < row["mean"] < row["high"]


def test_objects_that_reached_a_target_are_counted_and_positions_have_no_mean(tmp_path):
    rows = [
        *(("never_0.9", "left", 1), ("reached_0.9", "left", 3), ("mean_clicks_to_0.9", "left", 2)),
        *(("never_0.9", "all", 0), ("reached_0.9", "all", 4)),
        *(("worst_row", "left", 7), ("best_slice", "left", 5), ("best_dice", "left", 0.5)),
    ]
    first = pd.DataFrame(rows, columns=["quantity", "object", "value"])
    explore(tmp_path / "explore/clicks/vit_b/paper/a", first)
    # In this volume the target is never reached, so there is no mean number of clicks.
    explore(
        tmp_path / "explore/clicks/vit_b/paper/b", first.assign(value=[4, 0, None, *[0] * 3, 3, 1])
    )
    table = table_of(tmp_path, "clicks", "vit_b/paper")
    assert set(table.index) == {
        *((name, "left") for name in ("never_0.9", "reached_0.9", "share_reached_0.9")),
        *((name, "all") for name in ("never_0.9", "reached_0.9", "share_reached_0.9")),
        *((name, "left") for name in ("mean_clicks_to_0.9", "best_dice")),
    }
    assert table.loc[("never_0.9", "left"), "sum"] == 5
    assert table.loc[("reached_0.9", "left"), "sum"] == 3
    assert pd.isna(table.loc[("reached_0.9", "left"), "mean"])
    assert table.loc[("share_reached_0.9", "left"), "mean"] == (0.75 + 0) / 2
    clicks = table.loc[("mean_clicks_to_0.9", "left")]
    assert (clicks["mean"], clicks["volumes"]) == (2, 1)
    # No slice of the object `all` in the second volume: no share, not one of 0.
    assert table.loc[("share_reached_0.9", "all"), ["mean", "volumes"]].tolist() == [1, 1]


def test_runs_have_the_names_of_their_folders(tmp_path):
    for run in ("", "vit_l", "medsam/paper", "medsam/box_only"):
        explore(tmp_path / "explore/points" / run / "a", {"mean_dice_1_points": 0.5})
    explored = read_explorations(tmp_path)
    assert set(explored.runs) == {"points"}
    assert {name: len(volumes) for name, volumes in explored.runs["points"].items()} == {
        "vit_l without --prompts": 1,
        "vit_l": 1,
        "medsam/paper": 1,
        "medsam/box_only": 1,
    }


def test_unfinished_explorations_are_left_out_with_a_line(tmp_path, capsys):
    run = tmp_path / "explore" / "map" / "paper"
    explore(run / "a", {"random_click_mean": 0.5})
    (run / "b" / "unfinished").mkdir(parents=True)
    # Killed after the tables, before run.json.
    explore(run / "c", {"random_click_mean": 0.7})
    (run / "c" / "run.json").unlink()
    explored = read_explorations(tmp_path)
    assert [each.folder.name for each in explored.runs["map"]["paper"]] == ["a"]
    assert [line.split(":")[0] for line in explored.left_out] == [str(run / "b"), str(run / "c")]
    assert capsys.readouterr().err.count("unfinished; run the same command again to resume") == 2


def test_a_study_without_explorations_has_none(tmp_path):
    assert read_explorations(tmp_path) == ({}, [])


def test_patients_can_be_given(tmp_path):
    for name in "abc":
        explore(tmp_path / "explore/jitter/paper" / name, {"spread_sigma_1mm": 0.1}, name)
    patients = Patients("patients.csv", {"a": ("p", None), "b": ("p", None)}.get)
    explored = read_explorations(tmp_path, patients)
    assert [each.case for each in explored.runs["jitter"]["paper"]] == ["p", "p"]
    (line,) = explored.left_out
    assert line.endswith("c: is not in patients.csv; left out")


@pytest.mark.parametrize("name", [VALUES_NAME, SUMMARY_NAME])
def test_a_changed_table_is_refused(tmp_path, name):
    folder = tmp_path / "explore/best/paper/a"
    explore(folder, {"gain": 0.1})
    path = folder / name
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(InputError, match=rf"{name}: .*changed since it was written"):
        read_explorations(tmp_path)


def test_differences_between_runs_are_named(tmp_path):
    record = replace(RECORD, options={"sigma_mm": [1, 2], "repeats": 20})
    other = replace(record, options={"sigma_mm": [1, 2], "repeats": 10}, segmenter={"model": "b"})
    explore(tmp_path / "explore/jitter/paper/a", {"spread_sigma_1mm": 0.1}, record=record)
    explore(tmp_path / "explore/jitter/points/a", {"spread_sigma_1mm": 0.1}, record=record)
    assert differences(read_explorations(tmp_path).runs["jitter"]) == []
    explore(tmp_path / "explore/jitter/other/b", {"spread_sigma_1mm": 0.1}, record=other)
    assert differences(read_explorations(tmp_path).runs["jitter"]) == [
        "The runs are not of the same volumes.",
        "Not all volumes were explored with the same --repeats.",
    ]


def test_volumes_that_were_explored_in_different_ways_have_no_mean(tmp_path, capsys):
    record = replace(RECORD, options={"sigma_mm": [1, 2], "repeats": 20})
    for name, repeats in (("a", 20), ("b", 10)):
        of_volume = replace(record, options={"sigma_mm": [1, 2], "repeats": repeats})
        folder = tmp_path / "explore/jitter/paper" / name
        explore(folder, {"spread_sigma_1mm": 0.1}, record=of_volume)
    explore(tmp_path / "explore/jitter/points/a", {"spread_sigma_1mm": 0.1}, record=record)
    explored = read_explorations(tmp_path)
    assert list(explored.runs["jitter"]) == ["points"]
    (line,) = explored.left_out
    assert "a has --repeats 20, but b has 10" in line
    assert capsys.readouterr().err == f"warning: {line}\n"


def test_slices_are_means_over_prompts(tmp_path):
    values = pd.DataFrame(
        {"slice": [3, 3, 4], "object": ["all", "all", "1"], "row": 1, "dice": [0.2, 0.6, 0.9]}
    )
    explore(tmp_path / "explore/map/paper/a", {"best_dice": 1.0}, values=values)
    (volume,) = read_explorations(tmp_path).runs["map"]["paper"]
    assert volume.slices.to_dict("list") == {
        "slice": [3, 4],
        "object": ["all", "1"],
        "dice": [0.4, 0.9],
    }
