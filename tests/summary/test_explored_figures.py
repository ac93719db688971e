"""The figures of explorations of prompts."""

import numpy as np
import pandas as pd
import pytest
from explored_folders import explore

from sam_lungs.summary.explored import explored_table, read_explorations
from sam_lungs.summary.explored_figures import PANELS, draw_best, draw_curves


def table(means: dict[str, float], name: str = "all", patients: int = 6) -> pd.DataFrame:
    """Return the table of a run whose intervals reach from 0.1 below to 0.2 above the means."""
    rows = [
        {"quantity": quantity, "object": name, "patients": patients}
        | {"mean": mean, "low": mean - 0.1, "high": mean + 0.2}
        for quantity, mean in means.items()
    ]
    return pd.DataFrame(rows)


def curves(axes) -> dict[str, np.ndarray]:
    """Return x, y, and the ends of the intervals, (points, 4), by the labels of the curves."""
    found = {}
    for container in axes.containers:
        line, _, (bars,) = container.lines
        ends = np.array([segment[:, 1] for segment in bars.get_segments()])
        found[container.get_label()] = np.column_stack([*line.get_data(), ends])
    return found


def test_curves_have_the_values_of_the_table():
    means = {"mean_dice_sigma_10mm": 0.5, "mean_dice_sigma_2.5mm": 0.7, "spread_sigma_10mm": 0.3}
    dice, spread = draw_curves({"paper": table(means)}, PANELS["jitter"]).axes
    (curve,) = curves(dice).values()
    assert curve == pytest.approx(np.array([[2.5, 0.7, 0.6, 0.9], [10, 0.5, 0.4, 0.7]]))
    (curve,) = curves(spread).values()
    assert curve == pytest.approx(np.array([[10, 0.3, 0.2, 0.5]]))
    assert "mm" in dice.get_xlabel()
    assert [tick.get_text() for tick in dice.get_xticklabels()] == ["2.5", "10"]


def test_runs_share_a_panel_and_each_object_has_its_own():
    runs = {
        "medsam/paper": pd.concat(
            [table({"mean_dice_click_1": 0.5}, name) for name in ("left", "all")]
        ),
        "vit_b/paper": table({"mean_dice_click_1": 0.6}, patients=1),
    }
    figure = draw_curves(runs, PANELS["clicks"])
    assert [axes.get_title() for axes in figure.axes] == ["all objects", "object left"]
    labels = ["medsam/paper (6 patients)", "vit_b/paper (1 patient)"]
    assert [list(curves(axes)) for axes in figure.axes] == [labels, labels[:1]]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == labels


def test_points_with_and_without_box_are_different_lines_of_a_color():
    means = {"mean_dice_5_points": 0.5, "mean_dice_5_points_box": 0.6}
    means["mean_dice_5_points_box_spread"] = 0.7
    at_random, evenly = draw_curves({"paper": table(means)}, PANELS["points"]).axes
    names = {label: curve[0, 1] for label, curve in curves(at_random).items()}
    assert names == {"paper (6 patients), with box": 0.6, "paper (6 patients), without box": 0.5}
    assert len({line.get_color() for line, *_ in at_random.containers}) == 1
    assert [line.get_linestyle() for line, *_ in at_random.containers] == ["-", "--"]
    assert [curve[0, 1] for curve in curves(evenly).values()] == [0.7]


def test_a_mean_without_an_interval_is_drawn():
    one = table({"mean_dice_click_1": 0.5}, patients=1).assign(low=np.nan, high=np.nan)
    figure = draw_curves({"paper": one}, PANELS["clicks"])
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.containers[0].lines[0].get_data()[1].tolist() == [0.5]
    assert axes.get_ylim()[0] < 0.5 < axes.get_ylim()[1]


def test_many_runs_are_told_apart_and_the_legend_is_inside_the_figure():
    runs = {
        f"model_{number} with a rather long name/protocol": table({"mean_dice_click_1": 0.5})
        for number in range(9)
    }
    figure = draw_curves(runs, PANELS["clicks"])
    (axes,) = figure.axes
    styles = {(line.get_color(), line.get_marker()) for line, *_ in axes.containers}
    assert len(styles) == 9
    figure.draw_without_rendering()
    legend = figure.legends[0].get_window_extent()
    assert min(legend.x0, legend.y0) >= 0
    assert legend.x1 <= figure.bbox.x1
    assert axes.get_tightbbox().y0 >= legend.y1
    assert axes.get_window_extent().height > figure.bbox.height / 4


def test_best_is_drawn_over_the_start_of_each_slice(tmp_path):
    values = pd.DataFrame(
        {"slice": [1, 2], "object": "all", "start_dice": [0.5, 0.9], "dice": [0.7, 0.9]}
    )
    explore(tmp_path / "explore/best/paper/a", {"start_dice": 0.7, "best_dice": 0.8}, values=values)
    volumes = read_explorations(tmp_path).runs["best"]
    tables = {name: explored_table(each) for name, each in volumes.items()}
    (axes,) = draw_best(tables, volumes).axes
    slices, mean, equal = axes.get_lines()
    assert slices.get_xydata().tolist() == [[0.5, 0.7], [0.9, 0.9]]
    assert mean.get_xydata().tolist() == [[0.7, 0.8]]
    assert equal.get_label() == "equal"
