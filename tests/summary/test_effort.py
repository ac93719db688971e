"""Interactions of runs, and baselines that rival a model."""

from dataclasses import replace

import numpy as np
import pytest
from results_folders import RECORD, write_report, write_volume

from sam_lungs.study.results import SliceResult
from sam_lungs.summary.compare import compare_runs, read_runs
from sam_lungs.summary.effort import effort_of, rivals
from sam_lungs.summary.figures import draw_effort

BASELINE = replace(RECORD, segmenter={"model": "threshold", "family": "baseline", "weights": {}})


def write_run(folder, dice: list[float], interactions: int | None = 10, record=RECORD):
    """Write a run of one slice per patient."""
    for number, value in enumerate(dice):
        row = SliceResult(0, value / 2, value, 0.5, 10, 10, interactions)
        of_patient = replace(record, patient=f"patient_{number}")
        write_volume(folder / f"image_{number}", [row], of_patient)
    return folder


def rival_lines(tmp_path, baseline: list[float], model: list[float]) -> list[str]:
    folders = [
        write_run(tmp_path / "vit_l", model),
        write_run(tmp_path / "threshold", baseline, record=BASELINE),
    ]
    # In both orders of the runs.
    found = []
    for order in (folders, folders[::-1]):
        runs = read_runs(order)
        found.append(rivals(runs, compare_runs(runs)))
    assert found[0] == found[1]
    return found[0]


def test_a_baseline_that_is_at_most_a_hundredth_lower_rivals_the_model(tmp_path):
    (line,) = rival_lines(tmp_path / "rivals", [0.9, 0.895], [0.9, 0.91])
    assert "threshold, a baseline without weights, rivals vit_l here" in line
    assert "mean Dice 0.8975 against 0.9050 over 2 patients" in line
    (line,) = rival_lines(tmp_path / "beats", [0.95, 0.95], [0.9, 0.91])
    assert "beats vit_l" in line
    assert rival_lines(tmp_path / "neither", [0.88, 0.89], [0.9, 0.91]) == []


def test_models_that_are_equal_do_not_rival_each_other(tmp_path):
    runs = read_runs([write_run(tmp_path / name, [0.9, 0.8]) for name in ("a", "b")])
    assert rivals(runs, compare_runs(runs)) == []


def test_the_interactions_of_runs(tmp_path):
    dice = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    folders = [
        write_run(tmp_path / "every", dice, 100),
        write_run(tmp_path / "every_10", dice, 10),
        write_run(tmp_path / "unknown", dice, None),
    ]
    table = effort_of(read_runs(folders))
    assert table["run"].tolist() == ["every", "every_10"]
    assert table["model"].tolist() == ["vit_l", "vit_l"]
    assert table["interactions"].tolist() == [100, 10]
    assert table["dice"].tolist() == pytest.approx([0.65, 0.65])
    assert (table["low"] < 0.65).all()
    (axes,) = draw_effort(table).axes
    # The points of a model are joined in the order of their interactions.
    line = axes.lines[0]
    assert np.asarray(line.get_xdata()).tolist() == [10, 100]


def test_the_report_shows_effort_ranking_and_rivals(tmp_path):
    dice = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
    folders = [
        write_run(tmp_path / "every", dice, 100),
        write_run(tmp_path / "every_10", [each - 0.1 for each in dice], 10),
        write_run(tmp_path / "threshold", dice, 100, BASELINE),
    ]
    page = write_report(folders[0], folders[1:]).read_text("utf-8")
    assert (folders[0] / "figures" / "effort.png").exists()
    assert "threshold, a baseline without weights, rivals every here" in page
    assert "leader not best" in page
    assert (folders[0] / "ranking.csv").exists()
    # With one run all of that goes away.
    page = write_report(folders[0]).read_text("utf-8")
    assert "leader not best" not in page
    assert not (folders[0] / "ranking.csv").exists()
