import os
import subprocess
import sys
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from conftest import ROOT
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image

from sam_lungs.prompts.protocols import PROTOCOLS
from sam_lungs.summary.figures import (
    MANY_VOLUMES,
    draw_along_slices,
    draw_box_plots,
    draw_predicted_iou,
    draw_prompt_effects,
    draw_published,
    save_figure,
)
from sam_lungs.utils.errors import InputError

# Volumes with their subsets; None is not known.
STUDIES = {
    "one volume": {"image_phantom_001": "phantom"},
    "two phantoms": {"image_phantom_001": None, "image_phantom_002": None},
    "the dataset": {f"coronacases_{number:03d}": "coronacases" for number in range(1, 11)}
    | {f"image_radiopaedia_{number}_85902_{number % 4}": "radiopaedia" for number in range(10, 20)},
    "one in a subset of its own name": {"all": "all", "thorax": "thorax", "other": None},
}


@pytest.fixture(params=STUDIES)
def slices(request) -> pd.DataFrame:
    """Slices of volumes of different sizes; the first two and one in the middle have no lung."""
    random = np.random.default_rng(0)
    volumes = []
    for number, (image, subset) in enumerate(STUDIES[request.param].items()):
        dice = random.uniform(0.3, 1, 12 + number)
        dice[[0, 1, 7]] = np.nan
        jaccard = dice / (2 - dice)
        columns = {"slice": np.arange(len(dice)), "jaccard": jaccard, "dice": dice}
        volumes.append(
            pd.DataFrame({"image": image, "subset": subset, "score": jaccard**2, **columns})
        )
    return pd.concat(volumes, ignore_index=True)


def intervals(*values: float) -> pd.DataFrame:
    """Return a protocol's intervals; only the row of Dice over all volumes has these values."""
    names = ["case_avg", "case_low", "case_high"]
    other = {name: 0.1 for name in names}
    rows = [
        {"subset": "all", "metric": "jaccard", **other},
        {"subset": "all", "metric": "dice", **dict(zip(names, values, strict=True))},
        {"subset": "phantom", "metric": "dice", **other},
    ]
    return pd.DataFrame(rows)


EFFECTS = {
    name: intervals(0.9 - place / 100, 0.88 - place / 100, 0.93 - place / 100)
    for place, name in enumerate(PROTOCOLS)
}


def published(slices: pd.DataFrame) -> pd.DataFrame:
    pairs = slices[["image", "subset", "slice"]].assign(dice_published=slices["dice"])
    return pairs.assign(dice_reproduced=slices["dice"] - 0.001)


def points_of(axes) -> np.ndarray:
    """Return the coordinates of all markers, (points, 2), sorted."""
    lines = [line.get_xydata() for line in axes.lines if line.get_marker() not in (None, "None")]
    return np.array(sorted(map(tuple, np.concatenate(lines))))


def test_texts_are_readable_and_titles_do_not_overlap(slices):
    check_texts(
        draw_box_plots(slices),
        draw_along_slices(slices),
        draw_predicted_iou(slices),
        draw_published(published(slices)),
        draw_prompt_effects(EFFECTS),
    )


def check_texts(*drawn: Figure) -> None:
    for figure in drawn:
        figure.draw_without_rendering()
        width, height = figure.get_size_inches()
        assert width <= 7
        assert height <= 9.5
        assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 8
        around = figure.get_tightbbox()
        assert min(around.x0, around.y0) > -0.01
        assert around.x1 < width + 0.01
        assert around.y1 < height + 0.01
        titles = [axes.title.get_window_extent() for axes in figure.axes if axes.get_title()]
        for index, title in enumerate(titles):
            assert not any(title.overlaps(other) for other in titles[:index])


def test_box_plots_show_all_slices_each_subset_and_each_volume(slices):
    with_lung = slices.dropna(subset="dice").fillna({"subset": "no subset"})
    images, subsets = slices["image"].unique(), sorted(with_lung["subset"].unique())
    groups = [with_lung]
    if len(subsets) > 1:
        groups += [with_lung[with_lung["subset"] == name] for name in subsets]
    groups += [with_lung[with_lung["image"] == image] for image in images]
    figure = draw_box_plots(slices)
    for axes, metric in zip(figure.axes, ("jaccard", "dice"), strict=True):
        assert len(axes.patches) == len(groups)
        means = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "D"]
        np.testing.assert_allclose(means, [group[metric].mean() for group in groups])
    labels = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    counts = [label.rpartition("(n = ")[2].removesuffix(")") for label in labels]
    assert counts == [str(len(group)) for group in groups]
    assert not any("image_" in label for label in labels)


def test_each_volume_has_a_panel_with_gaps_in_slices_without_lung(slices):
    images = slices["image"].unique()
    # The order of the rows does not matter.
    figure = draw_along_slices(slices.iloc[::-1])
    drawn = [axes for axes in figure.axes if axes.axison]
    assert len(drawn) == len(images)
    for axes, image in zip(drawn, images[::-1], strict=True):
        volume = slices[slices["image"] == image]
        assert axes.get_title() == image.removeprefix("image_")
        np.testing.assert_array_equal(axes.lines[0].get_xydata(), volume[["slice", "dice"]])
        (grey,) = axes.patches
        without_lung, edges, _ = grey.get_data()
        np.testing.assert_array_equal(without_lung, volume["dice"].isna())
        np.testing.assert_array_equal(edges[:-1] + 0.5, volume["slice"])


def test_the_legend_names_the_colors_of_several_subsets(slices):
    names = sorted(slices["subset"].fillna("no subset").unique())
    named = names if len(names) > 1 else []
    for draw, further in ((draw_along_slices, ["no lung"]), (draw_box_plots, ["median", "mean"])):
        (legend,) = draw(slices).legends
        texts = [text.get_text() for text in legend.get_texts()]
        assert sorted(texts) == sorted([*named, *further])


def test_jaccard_and_dice_have_the_same_limits(slices):
    jaccard, dice = draw_box_plots(slices).axes
    assert jaccard.get_ylim() == dice.get_ylim()


def test_nearly_equal_values_have_ticks_without_an_offset():
    dice = 0.9 + np.arange(5) / 1e7
    columns = {"image": "a", "subset": None, "slice": range(5), "jaccard": dice, "dice": dice}
    for draw in (draw_along_slices, draw_box_plots):
        figure = draw(pd.DataFrame(columns))
        figure.draw_without_rendering()
        for axes in figure.axes:
            assert axes.yaxis.get_offset_text().get_text() == ""


def many(volumes: int) -> pd.DataFrame:
    """Return volumes of two subsets with 10 slices, the first without lung; the last is the best.

    Jaccard and Dice of a slice are its volume's share of the best, plus or minus up to 1 %.
    """
    number, index = np.divmod(np.arange(10 * volumes), 10)
    dice = np.where(index == 0, np.nan, (number + 1) / volumes + (index - 5) / 400)
    return pd.DataFrame(
        {
            "image": [f"image_a_rather_long_name_of_a_volume_{each:04d}" for each in number],
            "subset": np.where(number % 3 == 0, "north", "south"),
            "slice": index,
            "jaccard": dice / 1.02,
            "dice": dice / 1.02,
            "score": dice / 1.03,
        }
    )


def test_up_to_60_volumes_are_all_drawn():
    assert MANY_VOLUMES == 60
    slices = many(60)
    assert len(draw_along_slices(slices).axes) == 60
    assert len(draw_box_plots(slices).axes[1].get_xticklabels()) == 1 + 2 + 60


def test_of_many_volumes_the_worst_and_the_median_are_drawn():
    figure = draw_along_slices(many(61))
    titles = [axes.get_title() for axes in figure.axes]
    numbers = [*range(6), *range(27, 33)]  # volume 30 is the median
    ranks = ["worst"] * 6 + ["median"] * 6
    for title, number, rank in zip(titles, numbers, ranks, strict=True):
        assert title == f"{rank}: a_rather_lo…_volume_{number:04d}"


def test_of_many_volumes_distributions_are_drawn():
    slices = many(61)
    with_lung = slices.dropna(subset="dice")
    figure = draw_box_plots(slices)
    over_slices, over_volumes, *_ = figure.axes
    assert len(figure.axes) == 4
    assert len({axes.get_ylim() for axes in figure.axes}) == 1
    for axes, tables in (
        (over_slices, with_lung),
        (over_volumes, with_lung.groupby("image")[["jaccard"]].mean()),
    ):
        means = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "D"]
        of_all = tables["jaccard"].mean()
        assert means[0] == pytest.approx(of_all)
        assert len(means) == 3
    labels = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert labels == ["all (n = 61)", "north (n = 21)", "south (n = 40)"]
    histogram = over_slices.patches[0].get_data()
    counts = histogram.values - histogram.baseline
    expected, _ = np.histogram(with_lung["jaccard"], histogram.edges)
    np.testing.assert_allclose(counts / counts.max(), expected / expected.max())


def test_of_many_subsets_only_all_volumes_have_a_distribution():
    slices = many(61)
    figure = draw_box_plots(slices.assign(subset=slices["image"]))
    labels = [label.get_text() for label in figure.axes[-1].get_xticklabels()]
    assert labels == ["all (n = 61)"]


def test_of_many_volumes_the_density_of_slices_is_drawn():
    axes, colors = draw_predicted_iou(many(61)).axes
    (image,) = axes.collections
    assert image.get_rasterized()
    assert image.get_array().sum() == 61 * 9
    assert colors.get_ylabel() == "slices"


def test_figures_of_many_volumes_do_not_grow_with_their_number(tmp_path):
    for volumes in (100, 400):
        save_figure(draw_predicted_iou(many(volumes)), tmp_path, f"iou_{volumes}")
    for kind in ("svg", "pdf"):
        small, large = (tmp_path / f"iou_{volumes}.{kind}" for volumes in (100, 400))
        assert large.stat().st_size < 1.3 * small.stat().st_size


def test_texts_of_figures_of_many_volumes_are_readable():
    slices = many(61)
    check_texts(draw_box_plots(slices), draw_along_slices(slices), draw_predicted_iou(slices))


@pytest.mark.parametrize("shown", ["a $\\x$", "患者"])
def test_a_name_may_have_any_letters(tmp_path, shown):
    name = f"image_{shown}"
    slices = pd.DataFrame(
        {"image": name, "subset": [name, "$b^$"], "slice": [0, 1], "jaccard": 0.5, "dice": 0.6}
    )
    for draw in (draw_box_plots, draw_along_slices):
        figure = draw(slices)
        save_figure(figure, tmp_path, "figure")
        texts = {text.get_text() for text in figure.findobj(Text)}
        assert texts & {shown, f"{shown} (n = 2)"}
        assert shown in (tmp_path / "figure.svg").read_text("utf-8")


@pytest.mark.parametrize("volumes", range(1, 11))
def test_unused_panels_are_hidden(volumes):
    names = [f"image_{number}" for number in range(volumes)]
    slices = pd.DataFrame({"image": names, "subset": None, "slice": 0, "dice": 0.5})
    assert sum(axes.axison for axes in draw_along_slices(slices).axes) == volumes


def test_a_volume_of_one_slice_is_drawn(tmp_path):
    columns = {"subset": None, "slice": 0, "jaccard": 0.5, "dice": 0.6, "score": 0.7}
    slices = pd.DataFrame([{"image": "a", **columns}])
    for figure in (draw_box_plots(slices), draw_along_slices(slices), draw_predicted_iou(slices)):
        save_figure(figure, tmp_path, "one")


def test_dice_is_drawn_against_predicted_iou_with_spearmans_correlation(slices):
    (axes,) = draw_predicted_iou(slices).axes
    with_lung = slices.dropna(subset="dice")
    np.testing.assert_array_equal(
        points_of(axes), with_lung.sort_values("score")[["score", "dice"]]
    )
    # The predicted IoU is a rising function of Dice.
    assert axes.get_title() == f"Spearman's correlation 1.00 over {len(with_lung)} slices"
    markers = {line.get_marker() for line in axes.lines} - {"None"}
    assert len(markers) == slices["subset"].nunique(dropna=False)
    # If the predicted IoU is the Jaccard index, every slice lies on the dashed line.
    exact = slices.assign(score=slices["jaccard"])
    (axes,) = draw_predicted_iou(exact).axes
    x, y = axes.lines[-1].get_data()
    np.testing.assert_allclose(y, 2 * x / (1 + x))
    points = points_of(axes)
    np.testing.assert_allclose(np.interp(points[:, 0], x, y), points[:, 1], atol=1e-3)


def test_no_figure_without_predicted_iou(slices):
    assert draw_predicted_iou(slices.drop(columns="score")) is None
    assert draw_predicted_iou(slices.assign(score=np.nan)) is None


def test_published_and_reproduced_slices_are_drawn_with_the_line_of_equal_values(slices):
    pairs = published(slices)
    (axes,) = draw_published(pairs).axes
    drawn = pairs[["dice_published", "dice_reproduced"]].dropna().sort_values("dice_published")
    np.testing.assert_array_equal(points_of(axes), drawn)
    (line,) = [line for line in axes.lines if line.get_label() == "equal"]
    assert line.get_slope() == 1
    assert line.get_xy1()[0] == line.get_xy1()[1]


def test_each_protocol_is_drawn_with_mean_and_interval():
    axes, *_ = draw_prompt_effects(EFFECTS).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == list(EFFECTS)
    (points,) = axes.containers
    means = 0.9 - np.arange(len(EFFECTS)) / 100
    np.testing.assert_allclose(points.lines[0].get_xdata().astype(float), means)
    for segment, mean in zip(points.lines[2][0].get_segments(), means, strict=True):
        np.testing.assert_allclose(segment[:, 0], [mean - 0.02, mean + 0.03])
    assert axes.get_ylabel() == "run"
    assert axes.get_xlabel().endswith(", 95% interval")
    # Of few patients.
    axes, *_ = draw_prompt_effects({"vit_b/paper": intervals(0.9, np.nan, np.nan)}).axes
    assert axes.get_xlabel() == "mean Dice score of patients"


def test_the_curve_has_only_protocols_that_move_the_negative_point():
    _, axes = draw_prompt_effects(EFFECTS).axes
    x, y = axes.containers[0].lines[0].get_data()
    np.testing.assert_array_equal(x, [0, 15, 30, 45, 60])
    names = ["paper", *(f"negative_{rows}" for rows in x[1:])]
    expected = [EFFECTS[name].loc[1, "case_avg"] for name in names]
    np.testing.assert_allclose(y.astype(float), expected)


def test_no_curve_for_one_protocol_or_unknown_protocols():
    for names in (["paper"], ["paper", "no_box", "points"]):
        assert len(draw_prompt_effects({name: EFFECTS[name] for name in names}).axes) == 1
    own = {"paper": EFFECTS["paper"], "my own": intervals(0.7, np.nan, np.nan)}
    (axes,) = draw_prompt_effects(own).axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["paper", "my own"]


@pytest.mark.parametrize("slices", ["two phantoms"], indirect=True)
def test_figure_files_are_valid_and_reproducible(tmp_path, slices):
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        save_figure(draw_box_plots(slices), folder, "boxes")
        save_figure(draw_predicted_iou(slices), folder, "iou")
    kinds = ("pdf", "png", "svg")
    names = [f"{name}.{kind}" for name in ("boxes", "iou") for kind in kinds]
    for folder in folders:
        assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        first, second = (folder / name for folder in folders)
        assert first.read_bytes() == second.read_bytes()
    with Image.open(tmp_path / "a" / "boxes.png") as picture:
        assert picture.format == "PNG"
        assert picture.width == 7 * 300
    root = ElementTree.parse(tmp_path / "a" / "boxes.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    texts = ["".join(text.itertext()) for text in root.iter("{http://www.w3.org/2000/svg}text")]
    assert {"Jaccard index", "Dice score", "median"} <= set(texts)
    assert (tmp_path / "a" / "boxes.pdf").read_bytes().startswith(b"%PDF-")


DRAW = """
import sys
from pathlib import Path
import pandas as pd
from sam_lungs.summary.figures import draw_box_plots, save_figure
columns = {"subset": None, "slice": 0, "jaccard": 0.5, "dice": 0.6}
save_figure(draw_box_plots(pd.DataFrame([{"image": "a", **columns}])), Path(sys.argv[1]), "boxes")
"""


def test_other_processes_write_the_same_bytes(tmp_path):
    # The seed of the hashes of strings, and so of the order of sets, is another one there.
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    command = [sys.executable, "-c", DRAW, tmp_path / "there"]
    subprocess.run(command, env=environment, check=True, cwd=ROOT)
    columns = {"subset": None, "slice": 0, "jaccard": 0.5, "dice": 0.6}
    save_figure(draw_box_plots(pd.DataFrame([{"image": "a", **columns}])), tmp_path, "boxes")
    for kind in ("pdf", "png", "svg"):
        there = tmp_path / "there" / f"boxes.{kind}"
        assert there.read_bytes() == (tmp_path / there.name).read_bytes(), kind


def test_a_figure_that_cannot_be_written_raises(tmp_path, slices):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        save_figure(draw_predicted_iou(slices), tmp_path / "file", "iou")
