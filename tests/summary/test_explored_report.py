"""Explorations of prompts in the report, and what `summarize_explorations` writes."""

import base64
import re

import pandas as pd
import pytest
from explored_folders import explore
from PIL import Image
from results_folders import write_report, write_volume

from sam_lungs.study.explore.layout import MAPS_FOLDER, map_name
from sam_lungs.study.results import SliceResult
from sam_lungs.summary.explored_report import explored_of_results, summarize_explorations
from sam_lungs.summary.join import join_results
from sam_lungs.utils.errors import InputError

SECTION = "<h2>Prompts explored</h2>"
FOUND = pd.DataFrame({"slice": [0], "object": "all", "start_dice": 0.75, "dice": 0.875})


def write_results(folder) -> None:
    write_volume(folder / "image_a", [SliceResult(0, 0.5, 2 / 3, 0.5, 10, 10)])


def explore_map(folder, dice: dict[int, float]) -> None:
    """Write the map of a volume, and a picture of a colour of its own for each slice."""
    for index in dice:
        (folder / MAPS_FOLDER).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2), (index, 0, 0)).save(folder / MAPS_FOLDER / map_name(index))
    values = pd.DataFrame({"slice": dice.keys(), "object": "all", "dice": dice.values()})
    # The mean over the slices of another object would give another order.
    values = pd.concat([values, values.assign(object="1", dice=1 - values["dice"] / 2)])
    explore(folder, {"random_click_mean": 0.5, "share_dice_0.8": 0.25}, values=values)


def test_tables_and_figures_are_written_and_printed(tmp_path, capsys):
    for run, mean in (("paper", 0.75), ("points", 0.5)):
        explore(tmp_path / "explore/jitter" / run / "a", {"mean_dice_sigma_1mm": mean})
    explore_map(tmp_path / "explore/map/a", {3: 0.5})
    written = summarize_explorations(tmp_path)
    assert [path.relative_to(tmp_path / "explore").as_posix() for path in written] == [
        "map/explored.csv",
        "jitter/paper/explored.csv",
        "jitter/points/explored.csv",
        "jitter/figures/jitter.svg",
        "jitter/figures/jitter.pdf",
        "jitter/figures/jitter.png",
    ]
    assert written[1].read_text() == (
        "quantity,object,patients,volumes,mean,low,high,sum\nmean_dice_sigma_1mm,all,1,1,0.75,,,\n"
    )
    printed = capsys.readouterr().out
    assert re.search(r"mean_dice_sigma_1mm +all +0\.7500 +0\.5000", printed)
    assert re.search(r"share_dice_0\.8 +all +0\.2500", printed)
    contents = [path.read_bytes() for path in written]
    summarize_explorations(tmp_path)
    assert [path.read_bytes() for path in written] == contents


def test_the_report_shows_the_explorations(tmp_path):
    results = tmp_path / "vit_l" / "paper"
    write_results(results)
    explore(tmp_path / "explore/best/vit_l/paper/image_a", {"gain": 0.125}, values=FOUND)
    counts = {"reached_0.9": 3, "never_0.9": 1, "mean_dice_click_1": 0.5}
    explore(tmp_path / "explore/clicks/a<b/image_a", counts)
    (tmp_path / "explore/clicks/a<b/image_b/unfinished").mkdir(parents=True)
    page = write_report(results).read_text("utf-8").replace("<wbr>", "")
    section = page[page.index(SECTION) :]
    assert "an oracle that no user" in section
    text = '<td class="text">'
    assert f"{text}gain</td>{text}all</td><td>0.1250</td>" in section
    assert ">a&lt;b (1 patient)</th>" in section
    assert f"{text}never_0.9</td>{text}all</td><td>1</td>" in section
    assert "mean_dice_click_1</td>" not in section
    assert "image_b: its exploration is unfinished" in section
    for kind in ("best", "clicks"):
        assert f"<code>../../explore/{kind}/figures/{kind}.svg" in section
        png = (tmp_path / "explore" / kind / "figures" / f"{kind}.png").read_bytes()
        assert base64.b64encode(png).decode() in section


@pytest.mark.parametrize("results", ["", "paper", "vit_l/paper"])
def test_explorations_are_those_of_the_study_of_the_results(tmp_path, results):
    (tmp_path / results).mkdir(parents=True, exist_ok=True)
    assert explored_of_results(tmp_path / results) == {"sections": [], "left_out": []}
    explore_map(tmp_path / "explore/map" / results / "image_a", {3: 0.5})
    (section,) = explored_of_results(tmp_path / results)["sections"]
    (heat_map,) = section.heat_maps
    assert (tmp_path / results / heat_map.files).is_file()


def test_heat_maps_of_the_worst_the_median_and_the_best_slice_are_embedded(tmp_path):
    explore_map(tmp_path / "explore/map/image_a", {3: 0.5, 4: 0.9})
    explore_map(tmp_path / "explore/map/image_b", {5: 0.7, 6: 0.1, 7: 0.8})
    (section,) = explored_of_results(tmp_path)["sections"]
    paths = [f"explore/map/image_b/maps/{map_name(index)}" for index in (6, 5)]
    paths.append(f"explore/map/image_a/maps/{map_name(4)}")
    assert [picture.files for picture in section.heat_maps] == paths
    for picture, path in zip(section.heat_maps, paths, strict=True):
        content = base64.b64decode(picture.data_uri.removeprefix("data:image/png;base64,"))
        assert content == (tmp_path / path).read_bytes()
    assert [picture.caption.split(": ")[1] for picture in section.heat_maps] == [
        f"the {rank} slice, mean Dice {dice} over all clicks of the grid"
        for rank, dice in (("worst", "0.1000"), ("median", "0.7000"), ("best", "0.9000"))
    ]


def test_the_folder_of_explorations_is_no_volume(tmp_path):
    write_results(tmp_path)
    explore_map(tmp_path / "explore/map/image_a", {3: 0.5})
    joined = join_results(tmp_path)
    assert joined.left_out == []
    assert joined.volumes["image"].tolist() == ["image_a"]


def test_what_a_run_does_not_have_is_a_dash(tmp_path):
    for run, quantity in (("one", "final_dice"), ("two", "area_under_curve")):
        counts = {quantity: 0.5, "mean_dice_click_1": 0.5}
        explore(tmp_path / "explore/clicks" / run / f"image_{run}", counts)
    (section,) = explored_of_results(tmp_path)["sections"]
    assert section.header == ["quantity", "object", "one (1 patient)", "two (1 patient)"]
    assert section.rows == [
        ["final_dice", "all", "0.5000", "-"],
        ["area_under_curve", "all", "-", "0.5000"],
    ]
    assert section.differences == ["The runs are not of the same volumes."]


def test_the_table_of_many_runs_has_a_line_for_each(tmp_path):
    for number in range(4):
        quantity = "gain" if number else "start_dice"
        explore(tmp_path / f"explore/best/{number}/a", {quantity: number / 8}, values=FOUND)
    (section,) = explored_of_results(tmp_path)["sections"]
    assert section.header == ["quantity", "object", "run", "value"]
    assert section.rows == [
        ["start_dice", "all", "0 (1 patient)", "0.0000"],
        *(["gain", "all", f"{number} (1 patient)", f"{number / 8:.4f}"] for number in (1, 2, 3)),
    ]


def test_a_changed_heat_map_is_one_line(tmp_path):
    explore_map(tmp_path / "explore/map/image_a", {3: 0.5})
    (tmp_path / "explore/map/image_a/maps" / map_name(3)).unlink()
    with pytest.raises(InputError, match=r"^\S*slice_3_map.png: .*changed since.*$"):
        summarize_explorations(tmp_path)
