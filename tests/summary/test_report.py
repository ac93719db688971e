"""The report is made from files on disk alone."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from conftest import assert_refused
from matplotlib.figure import Figure
from results_folders import RECORD, write_report, write_volume

from sam_lungs.study.results import EmptySlice, SliceResult
from sam_lungs.summary import figures, report, report_tables
from sam_lungs.summary.compare import published_volumes
from sam_lungs.summary.embedded import Picture
from sam_lungs.summary.patients import PatientOptions
from sam_lungs.summary.report_text import dataset_name, training
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


@pytest.fixture
def undrawn(monkeypatch):
    """Figures take seconds; without them the page has all its sentences and tables."""
    monkeypatch.setattr(
        report, "save_picture", lambda _, folder, name, caption: Picture("data:,", caption, name)
    )
    monkeypatch.setattr(report, "_draw_study", lambda slices, folder: [])


def cells(page: str) -> list[str]:
    return re.findall(r"<td[^>]*>(.*?)</td>", page.replace("<wbr>", ""))


def test_headline_equals_hand_computed_values(results, undrawn):
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


def test_the_settings_come_from_the_run_records(results, undrawn):
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


def test_readings_and_findings_are_shown_with_their_volumes(results, undrawn):
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
    differing = page[page.index("These settings differ:") : page.index("The models of all runs")]
    assert re.findall(r"<th [^>]*>(.*?)</th>", differing) == [
        *("volumes", "alignment of the masks", "labels of the objects", "window"),
        "spacing given in mm",
    ]
    first = ["image_phantom_001", "auto", "not given", "auto", "not given"]
    second = ["image_phantom_002", "affine", "left 10+11, right 12", "374,1500", "1.0, 0.5"]
    assert cells(differing) == first + second
    near_the_top = page[: page.index("<h2>Results</h2>")]
    assert re.findall("<summary>(.*?)</summary>", near_the_top) == [
        "offset: image_phantom_001, image_phantom_002",
        "saturated, a fault that was allowed: image_phantom_002",
    ]
    assert re.findall("<li>(.*?)</li>", near_the_top)[1:] == [
        "paper: other --align, --labels, --window",
        "m.npy: 2 mm &lt;off&gt;",
        "n.npy: 3 mm",
        "i.npy: white",
    ]


def test_patients_can_be_given(results, capsys, undrawn):
    page = write_report(results, patients=PatientOptions(patients="(image).*").read_patients())
    assert (
        "Patients: 1, volumes: 2; the patients come from --patients (image).*."
        in page.read_text("utf-8")
    )
    assert capsys.readouterr().err == ""


def test_unknown_patients_are_said(results, capsys, undrawn):
    write_dice(results / "image_phantom_002", 0.8)
    page = write_report(results).read_text("utf-8")
    assert "volumes without a known patient, each counted as one: 1." in page
    assert "the patients of 1 of 2 volumes are not known" in capsys.readouterr().err


def test_a_column_is_aligned_as_one():
    rows = [["a", None, 0.5], [None, 3, None], ["12", None, "< 0.0001"]]
    table = report_tables.table_of(["name", "number", "p"], rows)
    assert [[cell.is_text for cell in row] for row in table.rows] == [[True, False, False]] * 3
    assert report_tables.table_of(["name"], []).rows == []


def test_unknown_patients_do_not_come_from_anywhere(results, undrawn):
    write_dice(results / "image_phantom_001", 0.8)
    write_dice(results / "image_phantom_002", 0.8)
    page = write_report(results).read_text("utf-8")
    assert "Volumes: 2; the patients are not known, so each volume counts as one." in page
    assert "come from run.json" not in page


@pytest.mark.parametrize(
    ("family", "shown"), [("baseline", "box, no weights"), ("masks", "box, not recorded")]
)
def test_a_model_without_weights_is_not_shown_as_weights(results, undrawn, family, shown):
    record = replace(RECORD, segmenter={"model": "box", "family": family, "weights": {}})
    for image in ("image_phantom_001", "image_phantom_002"):
        write_dice(results / image, 0.8, record=record)
    other = results.parent / "no_box"
    page = write_report(results, [other]).read_text("utf-8")
    made, compared = page.split("How the results were made")[1].split("compared runs differ")
    assert shown in cells(made)
    assert {shown, "sam_vit_l.pth 3adc"} <= set(cells(compared))


def test_the_page_is_self_contained_and_reproducible(results):
    path = write_report(results, [results.parent / "no_box"])
    page = path.read_bytes()
    sources = re.findall(rb'(?:src|href)="([^"]*)"', page)
    assert all(source.startswith((b"data:", b"#", b"https://doi.org/")) for source in sources)
    assert not re.findall(rb"@import|url\(|<script src|<link", page)
    files = re.findall(r"<code>(figures/[^<]*)</code>", page.decode())
    assert len(files) == 4
    for first, *others in (each.split(", ") for each in files):
        for path_of_figure in (results / first, *map((results / first).with_suffix, others)):
            assert path_of_figure.exists()
    assert write_report(results, [results.parent / "no_box"]).read_bytes() == page


def text_of(page: str) -> str:
    """The text of a page without tags, with single spaces."""
    return " ".join(re.sub("<[^>]*>", "", page).split())


def test_the_headline_names_model_dataset_and_date(results, undrawn):
    page = write_report(results).read_text("utf-8")
    assert "<title>vit_l on paper: segmentation report</title>" in page
    assert "<h1>Segmentation by vit_l on paper</h1>" in page
    assert "The date of the run is not recorded" in page
    study = {"output_folder": "my_scans/results", "dataset": "lists/clinic.yml"}
    first, second = (
        replace(RECORD, started=f"2026-11-{day}T12:00:00+00:00", other_options=study)
        for day in (24, 26)
    )
    for image, record in (("image_phantom_001", second), ("image_phantom_002", first)):
        write_dice(results / image, 0.8, record=record)
    page = write_report(results).read_text("utf-8")
    title = "vit_l on clinic.yml, 2026-11-24 to 2026-11-26: segmentation report"
    assert f"<title>{title}</title>" in page
    assert "Run of 2026-11-24 to 2026-11-26;" in page


@pytest.mark.parametrize(
    ("folder", "options", "name"),
    [
        ("/data/lits/results/paper", [{}], "lits"),
        ("/data/lits", [{}], "lits"),
        ("/data/moved", [{"output_folder": "lits/results"}], "lits"),
        ("/data/moved", [{"output_folder": "/data/lits"}], "lits"),
        ("/data/lits/results", [{"output_folder": "results"}], "results"),
        ("/data/lits", [{"dataset": "a/b.yml"}, {"dataset": "a/c.yml"}], "b.yml, c.yml"),
        ("/data/lits", [{"dataset": "a/b.yml"}, {"dataset": None}], "lits"),
        ("/data/lits", [], "lits"),
    ],
)
def test_the_dataset_is_the_dataset_file_or_the_folder_of_the_study(folder, options, name):
    records = {str(i): replace(RECORD, other_options=each) for i, each in enumerate(options)}
    assert dataset_name(Path(folder), records.values()) == name


@pytest.mark.parametrize(
    ("segmenter", "sentence"),
    [
        (
            {"model": "vit_l", "provenance": "official"},
            "vit_l: its training data do not have such images, as far as they are described"
            " (synthetic). This project draws these patients; its compact model alone is trained on"
            " them. Source: docs/synthetic.md.",
        ),
        (
            {"model": "compact", "provenance": "official"},
            "compact: its training data have such images (synthetic). Trained on other patients of"
            " the same generator. Source: checkpoints/sam_compact.md.",
        ),
        (
            {"model": "vit_b", "provenance": "given"},
            "vit_b: it is not known whether it was trained on such images (synthetic). Source:"
            " weights given as a file.",
        ),
        ({"model": "threshold", "family": "baseline"}, "threshold: no training."),
    ],
    ids=lambda value: value["model"] if isinstance(value, dict) else "",
)
def test_a_sentence_says_whether_a_model_was_trained_on_such_images(segmenter, sentence):
    records = {"image_phantom_001": replace(RECORD, segmenter=segmenter)}
    assert training([records, records]) == [sentence]


def test_baselines_scored_masks_and_prompts_of_a_file_are_named_as_such(tmp_path, undrawn):
    of_reference = "The prompts are made from the reference masks"
    baseline = replace(RECORD, segmenter={"model": "box", "family": "baseline"})
    masks = replace(RECORD, segmenter={"model": "lungmask", "family": "masks"}, protocol={})
    file = replace(RECORD, protocol={"prompts_file": "clicks.csv", "sha256": "0"})
    for name, record in (("box", baseline), ("masks", masks), ("file", file)):
        write_dice(tmp_path / name / "image_a", 0.8, record=record)
    pages = {
        name: text_of(write_report(tmp_path / name).read_text("utf-8"))
        for name in ("box", "masks", "file")
    }
    assert "box, a baseline without weights, segments slice by slice" in pages["box"]
    assert of_reference in pages["box"]
    assert "Masks that were made elsewhere, by lungmask, are compared" in pages["masks"]
    assert "--empty_slices" not in pages["masks"]
    assert "The prompts are those of the file clicks.csv." in pages["file"]
    for name in ("masks", "file"):
        assert of_reference not in pages[name]
        assert "Prompts from a person" not in pages[name]


def test_figures_that_are_not_of_the_published_model_are_said_to_differ(tmp_path, undrawn):
    other = replace(RECORD, segmenter={"model": "compact"})
    no_box = replace(RECORD, protocol={"points": "inside", "box": False})
    said = []
    for record in (RECORD, other, no_box):
        write_dice(tmp_path / "image_coronacases_001", 0.9, record=record)
        page = write_report(tmp_path).read_text("utf-8")
        said.append(re.findall(r"The published figures are those of vit_l .* is of (.*),", page))
    assert said == [[], ["compact"], ["vit_l with other prompts"]]


def test_of_many_volumes_the_worst_and_the_median_are_shown(tmp_path, undrawn, monkeypatch):
    monkeypatch.setattr(figures, "MANY_VOLUMES", 5)
    monkeypatch.setattr(report_tables, "SHOWN_VOLUMES", 2)
    other = replace(RECORD, environment=RECORD.environment | {"code_sha256": "other"})
    for number in range(14):
        write_dice(tmp_path / f"image_{number:02}", 0.95 - number / 20, record=other)
        (tmp_path / f"image_{number:02}_killed").mkdir()
    page = write_report(tmp_path).read_text("utf-8")
    volumes = page[page.index("<h2>Volumes</h2>") : page.index("How the results were made</h2>")]
    assert "4 of 14 volumes, by their mean Dice score" in volumes
    images = re.findall(r"image_\d\d", volumes.replace("<wbr>", ""))
    assert images == ["image_13", "image_12", "image_07", "image_06"]
    assert re.findall(r"<tr><td>(\d+)</td>", volumes) == ["1", "2", "7", "8"]
    assert "14: image_00, image_01, image_02, image_03, image_04, ..." in page
    assert page.count("its run is unfinished") + page.count("has no raw_data.csv") == 10
    assert page.count("and 4 more") == 2  # of the folders, and of the volumes of other code


def test_runs_are_compared_with_the_first(results):
    page = write_report(results, [results.parent / "no_box"]).read_text("utf-8")
    assert "Runs compared" in page
    assert (results / "figures" / "prompts.svg").exists()
    assert "-0.1000" in cells(page)
    table = (results / "comparison.csv").read_text()
    assert table.count("paper,no_box") == 3


def test_left_out_folders_and_different_settings_are_named(results, undrawn):
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
    assert "torch 2.6, timm 1.0" in cells(page)
    assert values <= set(cells(page))


def test_volumes_made_by_other_code_are_named(results, undrawn):
    other = replace(RECORD, environment=RECORD.environment | {"code_sha256": "other"})
    write_dice(results / "image_phantom_002", 0.8, record=other)
    page = " ".join(write_report(results).read_text("utf-8").split())
    assert (
        "1 of 2 volumes were made by other code than the present one (image_phantom_002);"
        " <code>--overwrite</code> recomputes them"
    ) in page


def test_published_volumes_are_compared_with_their_means(tmp_path, undrawn):
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


def test_slices_without_lung_have_their_own_table(results, undrawn):
    found = [EmptySlice(5, 1, 10, 2.5)]
    write_dice(results / "image_phantom_002", 0.8, empty_slices=found)
    page = write_report(results).read_text("utf-8")
    assert "Slices without lung" in page
    assert "2.5000" in cells(page)
    assert "--empty_slices nearest" not in page


def test_the_worst_slices_have_the_pictures_of_their_own_run(results, undrawn):
    # Pictures beside the results folder are of single slices, perhaps by another run.
    beside = results.parent / "debug" / "image_phantom_001"
    own = results / "image_phantom_001" / "debug"
    beside.mkdir(parents=True)
    Figure().savefig(beside / "slice_1_prediction.png")
    assert "Dice 0.5000" not in write_report(results).read_text("utf-8")
    own.mkdir()
    Figure().savefig(own / "slice_1_prediction.png")
    assert "Dice 0.5000" not in write_report(results).read_text("utf-8")
    RECORD.write(own.parent, ["raw_data.csv", "results.csv", "debug/slice_1_prediction.png"])
    page = write_report(results).read_text("utf-8")
    assert page.count('<img src="data:image/jpeg') == 1
    assert "<code>image_phantom_001/debug/slice_1_prediction.png</code>" in page
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
