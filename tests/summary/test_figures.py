from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from matplotlib.text import Text
from PIL import Image

from sam_lungs.prompts.protocols import PROTOCOLS
from sam_lungs.summary.figures import (
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
    for figure in (
        draw_box_plots(slices),
        draw_along_slices(slices),
        draw_predicted_iou(slices),
        draw_published(published(slices)),
        draw_prompt_effects(EFFECTS),
    ):
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
    with_lung = slices.dropna(subset="dice").fillna({"subset": "slices"})
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


def test_figure_files_are_valid_and_reproducible(tmp_path, slices):
    folders = tmp_path / "a", tmp_path / "b"
    for folder in folders:
        save_figure(draw_box_plots(slices), folder, "boxes")
        save_figure(draw_predicted_iou(slices), folder, "iou")
    names = ["boxes.png", "boxes.svg", "iou.png", "iou.svg"]
    for folder in folders:
        assert sorted(path.name for path in folder.iterdir()) == names
    for name in names:
        first, second = (folder / name for folder in folders)
        assert first.read_bytes() == second.read_bytes()
    with Image.open(tmp_path / "a" / "boxes.png") as picture:
        assert picture.format == "PNG"
        assert picture.width == 7 * 150
    root = ElementTree.parse(tmp_path / "a" / "boxes.svg").getroot()
    assert root.tag == "{http://www.w3.org/2000/svg}svg"


def test_a_figure_that_cannot_be_written_raises(tmp_path, slices):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        save_figure(draw_predicted_iou(slices), tmp_path / "file", "iou")
