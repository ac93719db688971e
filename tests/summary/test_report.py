"""The report is made from files on disk alone."""

import json
import re
from dataclasses import replace

import pytest
from conftest import assert_refused
from matplotlib.figure import Figure
from results_folders import RECORD, write_volume

from sam_lungs.study.results import EmptySlice, SliceResult
from sam_lungs.summary import figures
from sam_lungs.summary.compare import published_volumes
from sam_lungs.summary.patients import PatientOptions
from sam_lungs.summary.report import write_report
from sam_lungs.utils.errors import InputError


def write_dice(folder, *dice: float, record=RECORD, **options) -> None:
    slices = [SliceResult(i, d / (2 - d), d, d / 2, 10, 10) for i, d in enumerate(dice)]
    write_volume(folder, slices, record, **options)


@pytest.fixture
def results(tmp_path):
    """Two runs over two volumes of two patients."""
    for run, shift in (("paper", 0), ("no_box", -0.1)):
        for image, dice in (("image_phantom_001", (0.9, 0.5)), ("image_phantom_002", (0.8,))):
            record = replace(RECORD, patient=image[-3:])
            write_dice(tmp_path / run / image, *(each + shift for each in dice), record=record)
    return tmp_path / "paper"


def cells(page: str) -> list[str]:
    return re.findall(r"<td>(.*?)</td>", page)


def test_headline_equals_hand_computed_values(results):
    page = write_report(results).read_text("utf-8")
    # Slices 0.9, 0.5 and 0.8; volumes 0.7 and 0.8 of two patients, too few for an interval.
    headline = cells(page)[cells(page).index("dice") - 1 :][:9]
    assert headline == ["all", "dice", "0.7500", "0.7500", "2", "2", "3", "-", "held out"]
    assert "all: no interval, fewer than 6 patients." in page
    assert "Nothing to compare" in page
    assert "different settings" not in page
    assert "left out of all numbers" not in page
    assert "made by other code" not in page
    assert "Warnings about the input files" not in page
    assert "Patients: 2, volumes: 2; the patients come from run.json." in page


def test_the_settings_come_from_the_run_records(results):
    page = write_report(results).read_text("utf-8")
    assert {
        "vit_l",
        "sam_vit_l.pth 3adc",
        "float32",
        "inside",
        "yes",
        "auto",
        "cpu",
        "2",
        "abc",
        "3.11",
        "torch 2.6",
    } <= set(cells(page))


def test_readings_and_findings_are_shown_with_their_volumes(results):
    reading = {
        "window": "374,1500",
        "align": "affine",
        "objects": {"left": [10, 11], "right": [12]},
        "spacing_mm": [1.0, 0.5],
    }
    offset = {"name": "offset", "message": "m.npy: 2 mm <off>", "is_allowed": False}
    saturated = {"name": "saturated", "message": "i.npy: white", "is_allowed": True}
    write_dice(results / "image_phantom_001", 0.8, record=replace(RECORD, findings=[offset]))
    findings = [offset | {"message": "n.npy: 3 mm"}, saturated]
    record = replace(RECORD, reading=reading, findings=findings)
    write_dice(results / "image_phantom_002", 0.8, record=record)
    page = write_report(results, allow_mixed=True).read_text("utf-8")
    assert "different settings" in page
    row = r"<th>(.*?)</th>\s*<td>(.*?)</td>\s*<td>(.*?)</td>"
    rows = {name: values for name, *values in re.findall(row, page)}
    assert rows["window"] == ["auto", "374,1500"]
    assert rows["alignment of the masks"] == ["auto", "affine"]
    assert rows["labels of the objects"] == ["not given", "left 10+11, right 12"]
    assert rows["spacing in mm"] == ["not given", "1.0, 0.5"]
    near_the_top = page[: page.index("<h2>Results</h2>")]
    assert re.findall("<summary>(.*?)</summary>", near_the_top) == [
        "offset: image_phantom_001, image_phantom_002",
        "saturated, a fault that was allowed: image_phantom_002",
    ]
    assert re.findall("<li>(.*?)</li>", near_the_top) == [
        "paper: other --align, --labels, --window",
        "m.npy: 2 mm &lt;off&gt;",
        "n.npy: 3 mm",
        "i.npy: white",
    ]


def test_patients_can_be_given(results, capsys):
    page = write_report(results, patients=PatientOptions(patients="(image).*").read_patients())
    assert (
        "Patients: 1, volumes: 2; the patients come from --patients (image).*."
        in page.read_text("utf-8")
    )
    assert capsys.readouterr().err == ""


def test_unknown_patients_are_said(results, capsys):
    write_dice(results / "image_phantom_002", 0.8)
    page = write_report(results).read_text("utf-8")
    assert "volumes without a known patient, each counted as one: 1." in page
    assert "the patients of 1 of 2 volumes are not known" in capsys.readouterr().err


def test_the_page_is_self_contained_and_reproducible(results):
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
    assert table.count("paper,no_box") == 3


def test_left_out_folders_and_different_settings_are_named(results):
    (results / "image_phantom_001" / "run.json").unlink()
    changed = {"precision": "bfloat16", "objects": "apart"}
    segmenter = RECORD.segmenter | {"mask_choice": "token 0", "packages": {"timm": "1.0"}}
    other = replace(RECORD, options=RECORD.options | changed, segmenter=segmenter)
    write_dice(results / "image_phantom_003", 0.6, record=other)
    (results / "killed & gone").mkdir()
    page = write_report(results, allow_mixed=True).read_text("utf-8")
    assert "image_phantom_001: its run is unfinished" in page
    assert "killed &amp; gone: has no raw_data.csv" in page
    assert "different settings" in page
    values = {"float32", "bfloat16", "together", "apart", "not recorded", "token 0"}
    assert "torch 2.6, timm 1.0" in page
    assert values <= set(cells(page))


def test_volumes_made_by_other_code_are_named(results):
    other = replace(RECORD, environment=RECORD.environment | {"code_sha256": "other"})
    write_dice(results / "image_phantom_002", 0.8, record=other)
    page = " ".join(write_report(results).read_text("utf-8").split())
    assert (
        "1 of 2 volumes were made by other code than the present one (image_phantom_002);"
        " <code>--overwrite</code> recomputes them"
    ) in page


def test_published_volumes_are_compared_with_their_means(tmp_path):
    published = published_volumes().set_index("image").loc["radiopaedia_36_86526_0"]
    slices = [
        SliceResult(i, published["jaccard_avg"], published["dice_avg"], 0.9, 10, 10)
        for i in range(int(published["lung_slices"]))
    ]
    write_volume(tmp_path / "image_radiopaedia_36_86526_0", slices)
    assert "Reproduced as far as compared: 1 of 20" in write_report(tmp_path).read_text("utf-8")


def test_published_slices_are_compared_with_those_of_the_study(tmp_path, monkeypatch):
    drawn = []
    draw = figures.draw_published
    monkeypatch.setattr(figures, "draw_published", lambda pairs: drawn.append(pairs) or draw(pairs))
    write_dice(tmp_path / "ours" / "image_a", 0.9)
    (tmp_path / "theirs" / "image_a").mkdir(parents=True)
    (tmp_path / "theirs" / "image_a" / "raw_data_2023-05-27_09-43-55.csv").write_text(
        "slice,jaccard,dice\n0,0.25,0.4\n"
    )
    write_report(tmp_path / "ours", published_folder=tmp_path / "theirs")
    (pairs,) = drawn
    assert pairs[["dice_published", "dice_reproduced"]].to_numpy().tolist() == [[0.4, 0.9]]


def test_the_published_folder_is_compared_with_itself(real_data, tmp_path):
    for folder in (real_data / "published").iterdir():
        if folder.is_dir():
            (tmp_path / folder.name).mkdir()
            for path in folder.iterdir():
                (tmp_path / folder.name / path.name).write_bytes(path.read_bytes())
    page = write_report(tmp_path, published_folder=real_data / "published").read_text("utf-8")
    assert "Reproduced as far as compared: 10 of 20" in page
    assert "there is no run.json" in page
    assert "made by other code" not in page
    assert (tmp_path / "figures" / "published.svg").exists()


def test_slices_without_lung_have_their_own_table(results):
    found = [EmptySlice(5, 1, 10, 2.5)]
    write_dice(results / "image_phantom_002", 0.8, empty_slices=found)
    page = write_report(results).read_text("utf-8")
    assert "Slices without lung" in page
    assert "2.5000" in cells(page)
    assert "--empty_slices nearest" not in page


def test_the_worst_slices_have_the_pictures_of_their_own_run(results):
    # Pictures beside the results folder are of single slices, perhaps by another run.
    beside = results.parent / "debug" / "image_phantom_001"
    own = results / "image_phantom_001" / "debug"
    beside.mkdir(parents=True)
    Figure().savefig(beside / "slice_1_prediction.png")
    assert "Dice 0.5000" not in write_report(results).read_text("utf-8")
    own.mkdir()
    Figure().savefig(own / "slice_1_prediction.png")
    page = write_report(results).read_text("utf-8")
    (link,) = re.findall(r'href="([^"]*)"><img src="data:image/jpeg', page)
    assert link == "image_phantom_001/debug/slice_1_prediction.png"
    assert "image_phantom_001, slice 1: Dice 0.5000" in page


def test_invalid_folders_are_refused(results, run, tmp_path):
    with pytest.raises(InputError, match="missing"):
        write_report(tmp_path / "missing")
    script = "make_report.py"
    assert_refused(run(script, "-r", tmp_path / "missing"), "missing")
    assert_refused(run(script, "-r", results, "--compare", results), "given twice")
    (results / "image_phantom_001" / "run.json").write_text(json.dumps({"options": {}}))
    assert_refused(run(script, "-r", results), "run.json")
    assert not (results / "report.html").exists()


def test_the_script_prints_the_path_of_the_page(results, run):
    done = run("make_report.py", "-r", results, "--compare", results.parent / "no_box")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [str(results / "report.html")]
    assert done.stderr == ""
