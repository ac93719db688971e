"""The report, from files on disk alone."""

import json
import re

import numpy as np
import pytest
from conftest import assert_refused
from matplotlib.figure import Figure

from sam_lungs.study.results import EmptySlice, SliceResult, write_results
from sam_lungs.summary import figures as study_figures
from sam_lungs.summary.compare import published_volumes
from sam_lungs.summary.report import write_report
from sam_lungs.utils.errors import InputError

RUN = {
    "options": {"model": "vit_l", "window": "auto", "save_masks": False},
    "checkpoint": {"sha256": "3adc"},
    "precision": "float32",
    "protocol": {"points": "inside", "box": True},
    "device": "cpu",
    "threads": 2,
    "commit": "abc",
    "versions": {"torch": "2.6"},
}


def write_volume(folder, *dice: float, run=RUN, **options) -> None:
    slices = [SliceResult(i, d / (2 - d), d, d / 2, 10, 10) for i, d in enumerate(dice)]
    write_results(folder, slices, run, **options)


@pytest.fixture
def results(tmp_path):
    """Two runs over two volumes of two patients."""
    for run, shift in (("paper", 0), ("no_box", -0.1)):
        write_volume(tmp_path / run / "image_phantom_001", 0.9 + shift, 0.5 + shift)
        write_volume(tmp_path / run / "image_phantom_002", 0.8 + shift)
    return tmp_path / "paper"


def cells(page: str) -> list[str]:
    return re.findall(r"<td>(.*?)</td>", page)


def test_numbers_by_hand(results):
    page = write_report(results).read_text("utf-8")
    # Slices 0.9, 0.5 and 0.8; volumes 0.7 and 0.8, of two patients, whose t is 12.706.
    headline = cells(page)[8:16]
    reach = 12.7062 * np.std([0.7, 0.8], ddof=1) / np.sqrt(2)
    assert headline == [
        "all",
        "dice",
        "0.7333",
        "0.7500 (0.7000 to 0.8000)",
        f"0.7500 ({0.75 - reach:.4f} to {0.75 + reach:.4f})",
        "2",
        "2",
        "3",
    ]
    assert "Nothing to compare" in page
    assert "3adc" in page
    assert "not all processed alike" not in page
    assert "Left out" not in page


def test_the_page_needs_nothing_but_itself_and_the_same_files_give_the_same_page(results):
    path = write_report(results)
    page = path.read_bytes()
    sources = re.findall(rb'(?:src|href)="([^"]*)"', page)
    assert all(
        source.startswith((b"data:", b"figures/", b"#", b"https://doi.org/")) for source in sources
    )
    assert not re.findall(rb"@import|url\(|<script src|<link", page)
    links = [results / source.decode() for source in sources if source.startswith(b"figures/")]
    assert links
    assert all(link.exists() for link in links)
    assert write_report(results).read_bytes() == page


def test_runs_are_compared_with_the_first(results):
    page = write_report(results, [results.parent / "no_box"]).read_text("utf-8")
    assert "Runs compared" in page
    assert (results / "figures" / "prompts.svg").exists()
    assert "-0.1000" in cells(page)
    table = (results / "comparison.csv").read_text()
    assert table.count("paper,no_box") == 2


def test_what_is_left_out_and_what_differs_is_said(results):
    (results / "image_phantom_001" / "run.json").unlink()
    write_volume(results / "image_phantom_003", 0.6, run=RUN | {"precision": "bfloat16"})
    (results / "killed & gone").mkdir()
    page = write_report(results).read_text("utf-8")
    assert "image_phantom_001: its run broke off" in page
    assert "killed &amp; gone: has no raw_data.csv" in page
    assert "not all processed alike" in page
    assert {"float32", "bfloat16"} <= set(cells(page))


def test_published_volumes_are_held_against_their_figures(tmp_path):
    published = published_volumes().set_index("image").loc["radiopaedia_36_86526_0"]
    slices = [
        SliceResult(i, published["jaccard_avg"], published["dice_avg"], 0.9, 10, 10)
        for i in range(int(published["lung_slices"]))
    ]
    write_results(tmp_path / "image_radiopaedia_36_86526_0", slices, RUN)
    assert "Reproduced as far as compared: 1 of 20" in write_report(tmp_path).read_text("utf-8")


def test_published_slices_are_held_against_those_of_the_study(tmp_path, monkeypatch):
    drawn = []
    draw = study_figures.draw_published
    monkeypatch.setattr(
        study_figures, "draw_published", lambda pairs: drawn.append(pairs) or draw(pairs)
    )
    write_volume(tmp_path / "ours" / "image_a", 0.9)
    (tmp_path / "theirs" / "image_a").mkdir(parents=True)
    (tmp_path / "theirs" / "image_a" / "raw_data_2023-05-27_09-43-55.csv").write_text(
        "slice,jaccard,dice\n0,0.25,0.4\n"
    )
    write_report(tmp_path / "ours", published_folder=tmp_path / "theirs")
    (pairs,) = drawn
    assert pairs[["dice_published", "dice_reproduced"]].to_numpy().tolist() == [[0.4, 0.9]]


def test_the_published_folder_against_itself(real_data, tmp_path):
    for folder in (real_data / "published").iterdir():
        if folder.is_dir():
            (tmp_path / folder.name).mkdir()
            for path in folder.iterdir():
                (tmp_path / folder.name / path.name).write_bytes(path.read_bytes())
    page = write_report(tmp_path, published_folder=real_data / "published").read_text("utf-8")
    assert "Reproduced as far as compared: 10 of 20" in page
    assert "There is no run.json" in page
    assert (tmp_path / "figures" / "published.svg").exists()


def test_slices_without_lung_are_told_apart(results):
    found = [EmptySlice(5, 1, 10, 2.5)]
    write_volume(results / "image_phantom_002", 0.8, empty_slices=found)
    page = write_report(results).read_text("utf-8")
    assert "Slices without lung" in page
    assert "2.5000" in cells(page)
    assert "--empty_slices nearest" not in page


def test_the_worst_slices_come_with_their_pictures(results):
    path = results.parent.parent / "debug" / results.name / "image_phantom_001"
    path.mkdir(parents=True)
    Figure().savefig(path / "slice_1_prediction.png")
    page = write_report(results).read_text("utf-8")
    (link,) = re.findall(r'href="(\.\./[^"]*)"', page)
    assert (results / link).resolve() == (path / "slice_1_prediction.png").resolve()
    assert "image_phantom_001, slice 1: Dice 0.5000" in page


def test_nothing_to_report_is_refused(results, run, tmp_path):
    with pytest.raises(InputError, match="missing"):
        write_report(tmp_path / "missing")
    script = "make_report.py"
    assert_refused(run(script, "-r", tmp_path / "missing"), "missing")
    assert_refused(run(script, "-r", results, "--compare", results), "given twice")
    (results / "image_phantom_001" / "run.json").write_text(json.dumps({"options": {}}))
    assert_refused(run(script, "-r", results), "run.json", "process its image again")
    assert not (results / "report.html").exists()


def test_the_script_names_the_page(results, run):
    done = run("make_report.py", "-r", results, "--compare", results.parent / "no_box")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(results / "report.html")]
    assert done.stderr == ""
