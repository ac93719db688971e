"""The methods text, the checklist and the tables to deposit say what the results say."""

import json
import re
from dataclasses import fields, replace
from pathlib import Path

import pandas as pd
import pytest
from conftest import save_nifti
from results_folders import RECORD, write_volume

from sam_lungs.prompts.protocols import NEGATIVES, POINTS, PromptProtocol
from sam_lungs.segmenters.families import FAMILIES, describe
from sam_lungs.study.options import Options
from sam_lungs.study.results import EmptySlice, SliceResult
from sam_lungs.study.run import run_study
from sam_lungs.summary import methods_prompts
from sam_lungs.summary.compare import read_runs
from sam_lungs.summary.deposit import describe_column
from sam_lungs.summary.join import TABLES, join_results, write_tables
from sam_lungs.summary.methods import write_methods
from sam_lungs.summary.methods_metrics import DEFINITIONS, describe_metrics
from sam_lungs.summary.methods_prompts import POINTS as POINT_TEXTS
from sam_lungs.summary.methods_wording import CITATIONS, References, code, places, say
from sam_lungs.summary.methods_wording import table as markdown_table
from sam_lungs.summary.patients import PatientOptions
from sam_lungs.summary.statistics import RESAMPLES
from sam_lungs.synthetic.phantom import phantom_volume

SLICES = [SliceResult(0, None, None, None, 0, None), SliceResult(1, 0.5, 2 / 3, 0.6, 10, 20)]
FULL = replace(
    RECORD,
    options={
        "precision": "float32",
        "objects": "together",
        "empty_slices": "skip",
        "preprocessing": "common",
    },
    other_options={"dataset": "/home/someone/secret/paper.yml"},
    protocol={"points": "inside", "negative": "box_center", "negative_offset_rows": 0, "box": True},
    window_hu=[-1400.0, 100.0],
    seconds_per_slice=0.5,
)
ELSEWHERE = replace(
    FULL, segmenter={"model": "predictions", "family": "masks", "weights": {}}, protocol={}
)


def write_run(folder: Path, *records) -> Path:
    for number, record in enumerate(records, 1):
        write_volume(folder / f"image_{number}", SLICES, record)
    return folder


def methods(*folders: Path, allow_mixed: bool = False) -> str:
    """Write methods/ of runs; return its text."""
    runs = read_runs(folders, allow_mixed=allow_mixed)
    return write_methods(folders[0], runs).read_text("utf-8")


def section(text: str, title: str) -> str:
    (found,) = re.findall(rf"^\*\*{title}\.\*\* (.*)$", text, re.M)
    return found


def answers(folder: Path) -> dict[str, list[str]]:
    """Return the cells of each item of the checklist, by its number of 2024."""
    lines = (folder / "methods" / "checklist.md").read_text("utf-8").splitlines()
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in lines if line.startswith("| ")]
    assert {len(row) for row in rows} == {6}
    return {row[0].strip(): [cell.strip() for cell in row] for row in rows[2:]}


def files_of(folder: Path) -> dict[str, bytes]:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """Two protocols over two phantoms, one of them without Hounsfield units, with all metrics."""
    folder = tmp_path_factory.mktemp("study")
    paths = {"image": [], "masks": []}
    for number, variant in ((1, "hounsfield"), (2, "windowed")):
        image, masks, affine = phantom_volume(3, number, 4, variant, (64, 64))
        for name, array in (("image", image), ("masks", masks)):
            paths[name].append(save_nifti(folder / f"{name}_{number}.nii.gz", array, affine))
    options = Options(
        paths["image"],
        paths["masks"],
        model="compact",
        device="cpu",
        prompts=("paper", "points"),
        empty_slices="nearest",
        output_folder=folder / "out",
    )
    assert run_study(options) == 0
    return folder / "out"


def test_every_fact_of_a_real_study_is_in_the_text(study):
    runs = [study / "paper", study / "points"]
    text = methods(*runs)
    joined = join_results(runs[0])
    for run in runs:
        for path in run.glob("*/run.json"):
            record = json.loads(path.read_bytes())
            environment, segmenter = record["environment"], record["segmenter"]
            for name, sha256 in segmenter["weights"].items():
                assert f"`{name}` (SHA-256 `{sha256}`)" in section(text, "Model")
            facts = (segmenter["model"], segmenter["family"], record["options"]["precision"])
            assert all(f"`{fact}`" in section(text, "Model") for fact in facts)
            assert segmenter["preprocessing"] in section(text, "Images")
            assert f"`{environment['device']}`" in section(text, "Hardware")
            assert f"{environment['threads']} CPU thread" in section(text, "Hardware")
            packages = environment["packages"] | segmenter["packages"]
            for fact in (environment["python"], *(" ".join(each) for each in packages.items())):
                assert fact in section(text, "Software")
            assert f"`{environment['commit']}`" in section(text, "Software")
            assert f"version {record['numbers_version']} of the code" in section(text, "Software")
            for found in record["findings"]:
                assert f"`{found['name']}`" in section(text, "Input checks")
    slices, lung = joined.volumes[["slices", "lung_slices"]].sum()
    counted = f"2 volumes with {slices} slices in all, of which {lung} have lung"
    assert counted in section(text, "Data")
    assert section(text, "Images").startswith(
        "In `image_1` of every run, gray values were clipped to -1400 to 100 HU"
        " (level -650, width 1500). In `image_2` of every run, gray values were used without a"
    )
    prompts = section(text, "Prompts")
    assert prompts.count("derived from its reference mask") == 1
    assert (
        "In run `paper`, there was one negative point at the centre of the bounding box" in prompts
    )
    assert "In run `points`, there was no negative point" in prompts
    assert "got the prompts of the nearest slice" in prompts
    assert "not recorded" not in text.split(section(text, "Prompts"))[1]


def test_no_file_names_a_path_or_a_machine(study):
    methods(study / "paper", study / "points")
    system = json.loads((study / "paper/image_1/run.json").read_bytes())["environment"]["system"]
    for content in files_of(study / "paper" / "methods").values():
        assert str(study).encode() not in content
        assert b"/tmp" not in content
        assert system.encode() not in content


def test_the_same_results_give_the_same_bytes(study):
    methods(study / "paper", study / "points")
    first = files_of(study / "paper" / "methods")
    methods(study / "paper", study / "points")
    assert files_of(study / "paper" / "methods") == first
    assert {"methods.md", "checklist.md", "tables/README.md", "tables/comparison.csv"} <= set(first)


def test_the_tables_are_those_of_the_study_and_every_column_is_described(study, tmp_path):
    methods(study / "paper", study / "points")
    folder = study / "paper" / "methods" / "tables"
    readme = (folder / "README.md").read_text("utf-8")
    for run in ("paper", "points"):
        write_tables(join_results(study / run), tmp_path / run)
        for name in TABLES.values():
            stacked = pd.read_csv(folder / name, dtype="string")
            own = stacked[stacked["run"] == run].drop(columns="run").reset_index(drop=True)
            pd.testing.assert_frame_equal(own, pd.read_csv(tmp_path / run / name, dtype="string"))
    for path in folder.glob("*.csv"):
        part = readme.split(f"## {path.name}\n")[1].split("\n## ")[0]
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in part.splitlines() if "|" in line]
        assert {len(row) for row in rows} == {3}
        columns = pd.read_csv(path).columns
        assert [row[0].strip(" `") for row in rows[2:]] == columns.tolist()
        assert "see docs/results.md" not in part
    runs = pd.read_csv(folder / "runs.csv")
    for row in runs.to_dict("records"):
        record = json.loads((study / row["run"] / row["image"] / "run.json").read_bytes())
        assert row["image_sha256"] == record["image"]["sha256"]
        assert row["masks_sha256"] == record["masks"][0]["sha256"]
        assert row["weights_sha256"] == " ".join(record["segmenter"]["weights"].values())
        assert json.loads(row["protocol"]) == record["protocol"]
        assert row["commit"] == record["environment"]["commit"]
        assert row["seconds_per_slice"] == record["seconds_per_slice"]


def test_the_checklist_has_every_item_of_both_versions_once(study):
    methods(study / "paper", study / "points")
    items = answers(study / "paper")
    numbers = [set(map(str, range(1, last + 1))) for last in (44, 42)]
    assert set(items) - {"-"} == numbers[0]
    assert {cells[1] for cells in items.values()} - {"-"} == numbers[1]
    for cells in items.values():
        assert (cells[4] == "for the authors") == (cells[5] == "")
    joined = join_results(study / "paper")
    dice = joined.intervals.set_index(["subset", "metric"]).loc[("all", "dice")]
    assert f"`dice` {dice['case_avg']:.4f}" in items["37"][5]
    low = (joined.slices["dice"] < 0.5).sum()
    assert f"Run `paper`: {low} slice" in items["39"][5]


def test_the_script_writes_methods_beside_the_report(tmp_path, run, capsys):
    folder = write_run(tmp_path / "run", FULL, FULL)
    done = run("make_report.py", "-r", folder, "--methods")
    assert done.returncode == 0, done.stderr
    printed = [str(folder / "report.html"), str(folder / "methods" / "methods.md")]
    assert done.stdout.splitlines() == printed
    assert done.stderr.count("not known") == 1
    # The folder is not taken for a volume.
    assert join_results(folder).left_out == []
    assert capsys.readouterr().err == ""


def test_results_of_the_authors_say_what_is_not_recorded(tmp_path):
    for name in ("image_a", "image_b"):
        (tmp_path / "paper" / name).mkdir(parents=True)
        path = tmp_path / "paper" / name / "raw_data_2023-05-27_09-43-55.csv"
        path.write_text("slice,jaccard,dice\n0,,\n1,0.5,0.6\n")
    text = methods(tmp_path / "paper")
    data = section(text, "Data")
    assert "There are 2 volumes with 4 slices in all, of which 2 have lung" in data
    assert (
        "For all volumes there is no run.json, so these are not recorded: dataset, prompts" in data
    )
    assert "**Model.**" not in text
    assert "**Prompts.**" not in text
    items = answers(tmp_path / "paper")
    assert [items[number][4] for number in ("7", "9", "22", "24")] == ["for the authors"] * 4


def test_run_records_with_less_say_so(tmp_path):
    record = replace(
        RECORD, options={}, other_options={}, reading={}, segmenter={}, environment={}, protocol={}
    )
    text = methods(write_run(tmp_path / "run", record))
    expected = {
        "Data": ("the name of the dataset", "the alignment of the masks", "which labels are"),
        "Prompts": ("prompt protocol is not recorded", "the treatment of slices without lung"),
        "Images": ("preprocessing after the window is not recorded",),
        "Model": ("not recorded by name", "SHA-256 is not recorded", "precision of the image"),
        "Hardware": ("device is not recorded", "operating system is not", "time per slice is not"),
        "Software": ("a commit that is not recorded", "Python that is not", "versions are not"),
    }
    for title, words in expected.items():
        for word in words:
            assert word.lower() in section(text, title).lower()


def test_volumes_that_differ_are_named(tmp_path):
    other = replace(
        FULL, window_hu=[-910.0, 590.0], options=FULL.options | {"precision": "bfloat16"}
    )
    text = methods(write_run(tmp_path / "run", FULL, FULL, other), allow_mixed=True)
    images, model = section(text, "Images"), section(text, "Model")
    assert "In all volumes but `image_3`, gray values were clipped to -1400 to 100 HU" in images
    assert "In `image_3`, gray values were clipped to -910 to 590 HU" in images
    assert "In `image_3`, the model is `vit_l`" in model
    assert "`bfloat16`" in model.split("In `image_3`")[1]
    assert "`bfloat16`" not in model.split("In `image_3`")[0]


def test_a_volume_without_a_record_is_not_spoken_for(tmp_path):
    folder = write_run(tmp_path / "run", FULL, FULL)
    (tmp_path / "run" / "image_3").mkdir()
    path = tmp_path / "run" / "image_3" / "raw_data_2023-05-27_09-43-55.csv"
    path.write_text("slice,jaccard,dice\n0,0.5,0.6\n")
    text = methods(folder, allow_mixed=True)
    assert "For `image_3` there is no run.json" in section(text, "Data")
    for title in ("Prompts", "Images", "Model", "Software", "Input checks"):
        assert section(text, title).startswith("In all volumes but `image_3`, ")
    items = answers(folder)
    assert items["9"][4] == items["23"][4] == "in part"
    table = pd.read_csv(folder / "methods" / "tables" / "runs.csv", dtype="string")
    assert table["numbers_version"].tolist()[:2] == ["1", "1"]
    assert table.iloc[2].dropna().to_dict() == {"run": "run", "image": "image_3"}


def test_predictions_made_elsewhere_and_baselines(tmp_path):
    baseline = replace(FULL, segmenter={"model": "box", "family": "baseline", "weights": {}})
    runs = [
        write_run(tmp_path / name, record, record)
        for name, record in (("other", ELSEWHERE), ("box", baseline))
    ]
    text = methods(*runs)
    prompts, model = section(text, "Prompts"), section(text, "Model")
    assert "In run `other`, the predicted masks were made elsewhere" in prompts
    assert "In run `box`, the prompts of a slice were derived" in prompts
    assert "In run `box`, the masks are those of the baseline `box`, which has no weights" in model
    assert "image encoder" not in model
    assert section(text, "Images").startswith("In run `box`, gray values were clipped")
    assert "In run `box`, segmenting a slice took 0.5 s" in section(text, "Hardware")
    assert answers(runs[0])["27"][4] == "for the authors"
    text = methods(runs[0])
    assert "**Images.**" not in text
    table = pd.read_csv(runs[0] / "methods" / "tables" / "runs.csv", dtype="string")
    assert table["protocol"].tolist() == ["{}", "{}"]
    assert not (runs[0] / "methods" / "tables" / "comparison.csv").exists()


def test_findings_name_their_volumes(tmp_path):
    offset = {"name": "offset", "message": "/home/someone/m.nii.gz: 2 mm", "is_allowed": False}
    saturated = {"name": "saturated", "message": "/home/someone/i.nii.gz", "is_allowed": True}
    records = [replace(FULL, findings=each) for each in ([offset], [offset, saturated], [], [])]
    text = methods(write_run(tmp_path / "run", *records))
    assert section(text, "Input checks") == (
        "The check of the input files gave the warning `offset` for `image_1` and `image_2`."
        " The fault `saturated` was accepted by the user for `image_2`."
    )
    assert "someone" not in text
    assert "the dataset file `paper.yml`" in section(text, "Data")


def test_statistics_are_those_of_the_tables(tmp_path):
    records = [replace(FULL, patient=str(number)) for number in range(8)]
    runs = [write_run(tmp_path / "a", *records), tmp_path / "b"]
    for number, record in enumerate(records, 1):
        dice = 0.6 + number / 50
        slices = [SliceResult(1, dice / (2 - dice), dice, 0.6, 10, 20)]
        write_volume(runs[1] / f"image_{number}", slices, record)
    text = section(methods(*runs), "Statistics")
    comparison = pd.read_csv(runs[0] / "methods" / "tables" / "comparison.csv")
    assert f"is for all {comparison['p'].count()} p-values" in text
    for words in ("unit is the patient", f"{RESAMPLES:,} draws of patients", "Wilcoxon's"):
        assert words in text
    assert "fewer than 50 patients" in text
    intervals = pd.read_csv(runs[0] / "methods" / "tables" / "intervals.csv")
    row = intervals[(intervals["run"] == "b") & (intervals["metric"] == "dice")].iloc[0]
    expected = f"`dice` {row['case_avg']:.4f} ({row['case_low']:.4f} to {row['case_high']:.4f})"
    assert expected in answers(runs[0])["37"][5]
    assert "Runs were compared" not in section(methods(runs[0]), "Statistics")


def test_patients_and_subsets(tmp_path):
    records = [replace(FULL, patient=p, subset=s) for p, s in (("a", "x"), ("a", "y"), (None, "x"))]
    folder = write_run(tmp_path / "run", *records)
    data = section(methods(folder), "Data")
    assert "There are 3 volumes of 2 patients with 6 slices in all, of which 3 have lung" in data
    assert "the subsets are `x` (2 volumes) and `y` (1 volume)" in data
    assert (
        "those of `run.json`; volumes without a known patient, each counted as one patient: 1"
        in data
    )
    table = tmp_path / "list.csv"
    table.write_text("image,patient\nimage_1,a\nimage_2,b\n")
    patients = PatientOptions(patients=str(table)).read_patients()
    data = section(write_methods(folder, read_runs([folder], patients)).read_text(), "Data")
    assert "There are 2 volumes of 2 patients" in data
    assert "those of `list.csv`" in data
    assert "no usable results or patient: 1 folder" in data
    patients = PatientOptions(patients="(image)_.*|x").read_patients()
    data = section(write_methods(folder, read_runs([folder], patients)).read_text(), "Data")
    assert "by the pattern `(image)_.*|x`" in data


def test_runs_with_other_inputs_are_said(tmp_path):
    other = replace(FULL, image={"file": "image.npy", "sha256": "0"})
    folders = write_run(tmp_path / "paper", FULL), write_run(tmp_path / "b", other)
    text = methods(*folders, allow_mixed=True)
    assert "paper and b had other images" in section(text, "Data")


@pytest.mark.parametrize(
    ("protocol", "words"),
    [
        ({"points": "none", "negative": "none"}, ("no positive point", "no negative point")),
        ({"negative": "slice_center"}, ("at the centre of the slice",)),
        ({"negative": [[3, 4], [5, 6]]}, ("(row, column) (3, 4) and (5, 6)",)),
        ({"negative_offset_rows": 45}, ("moved down by 45 rows but not beyond the border",)),
        ({"negative_offset_rows": -1}, ("moved up by 1 row but",)),
        ({"box": False}, ("the bounding box of all labels was not given",)),
        ({"every": 5}, ("every k-th of its slices after it (k = 5)", "own were not segmented")),
        ({"points": None}, ("choice of positive points is not recorded",)),
        ({"negative": None}, ("choice of negative points is not recorded",)),
        ({"box": None}, ("whether a box was given is not recorded",)),
    ],
)
def test_protocols_in_words(tmp_path, protocol, words):
    record = replace(FULL, protocol=FULL.protocol | protocol)
    text = section(methods(write_run(tmp_path / "run", record)), "Prompts").lower()
    assert all(word in text for word in words)
    assert ("k-th" in text) == ("every" in protocol)


def test_objects_apart_and_every_choice_of_points_have_words(tmp_path):
    assert set(POINT_TEXTS) == set(POINTS)
    assert set(NEGATIVES) == {"box_center", "none", "slice_center"}
    told = {"points", "negative", "negative_offset_rows", "box", "every"}
    assert {each.name for each in fields(PromptProtocol)} <= told
    apart = replace(FULL, options=FULL.options | {"objects": "apart"})
    assert "each label was prompted apart" in methods_prompts.prompts(apart, References())
    assert "bounding box of each label" in methods_prompts.box(apart)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_cited_with_its_rules(tmp_path, family):
    about = {"model": "own", "weights": {"model.safetensors": "5afe"}, "provenance": "given"}
    record = replace(FULL, segmenter=about | describe(family))
    text = methods(write_run(tmp_path / "run", record))
    assert f"of the family `{family}` [" in section(text, "Model")
    for key in ("mask_choice", "mask_rule", "note"):
        assert record.segmenter[key] in section(text, "Model")


def test_references_are_numbered_as_they_are_cited(tmp_path):
    text = methods(write_run(tmp_path / "a", FULL), write_run(tmp_path / "b", FULL))
    body, listed = text.split("## References")
    cited = [
        int(number) for group in re.findall(r"\[([\d, ]+)\]", body) for number in group.split(",")
    ]
    numbers = [int(number) for number in re.findall(r"^(\d+)\. ", listed, re.M)]
    assert list(dict.fromkeys(cited)) == numbers == list(range(1, len(numbers) + 1))
    known = pd.read_csv(CITATIONS)
    assert known["key"].is_unique
    assert known["citation"].str.contains(r"doi 10|arXiv|\b(?:19|20)\d\d\b").all()


@pytest.mark.parametrize(
    ("metrics", "words"),
    [
        (["nsd_1mm", "nsd_2.5mm"], "`nsd_1mm` and `nsd_2.5mm` are the normalized surface Dice"),
        (["nsd_1mm", "nsd_2.5mm"], "at most 1 and 2.5 mm from"),
        (["nsd"], "at most 3 mm from"),
        (["hd95_mm"], "such slices are in no mean"),
        (["hd95_penalised_mm"], "the diagonal of the slice"),
        (["lung_slices_dice"], "slices without lung do not count"),
        (["dice_3d"], "all voxels of a volume"),
        (["nsd_3d_1mm"], "at most 1 mm from the other surface"),
        (["hd95_3d_mm"], "the larger one of the two 95th percentiles"),
        (["hd95_3d_penalised_mm"], "the diagonal of the volume"),
        (["interactions"], "two per box"),
        (["jaccard_mask_1", "dice_oracle"], "not a result that a user gets"),
    ],
)
def test_metrics_are_defined_by_their_names(metrics, words):
    assert words in describe_metrics(metrics, [3.0], References())
    for metric in metrics:
        assert sum(bool(re.fullmatch(each.pattern, metric)) for each in DEFINITIONS) == 1
        for column in (metric, f"{metric}_avg"):
            unit, meaning = describe_column("joint_results.csv", column)
            assert unit
            assert "docs/results.md" not in meaning


def test_only_metrics_with_values_are_defined(study, tmp_path):
    text = section(methods(study / "paper"), "Metrics")
    assert "`dice` is" in text
    assert "hd95" not in text
    measured = [replace(SLICES[1], more={"nsd_2mm": 0.5, "hd95_mm": 1.0})]
    record = replace(FULL, options=FULL.options | {"tolerance_mm": [2.0]})
    empty = [EmptySlice(5, 1, 10, 2.5)]
    write_volume(tmp_path / "run" / "image_1", measured, record, empty_slices=empty)
    text = section(methods(tmp_path / "run"), "Metrics")
    assert "at most 2 mm from" in text
    assert "`hd95_mm` is" in text


def test_names_cannot_break_the_markdown():
    assert code("a`b``c") == "``` a`b``c ```"
    assert code("a\nb") == "`a b`"
    rows = markdown_table(("a", "b"), [("x|y", "1\n2")])
    assert rows == "| a | b |\n| --- | --- |\n| x\\|y | 1 2 |\n"


def test_places_and_sentences():
    volumes = [(run, image) for run in "ab" for image in "xyz"]
    assert places(volumes, volumes) == "all volumes"
    assert places(volumes[:3], volumes) == "run `a`"
    assert places(volumes[:1], volumes[:3]) == "`x`"
    assert places(volumes[:2], volumes[:3]) == "all volumes but `z`"
    assert places([volumes[0], volumes[3]], volumes) == "`x` of every run"
    assert places([*volumes[:3], volumes[4]], volumes) == "run `a` and `y` of run `b`"
    assert say(dict.fromkeys(volumes, "it is so")) == "It is so."
    texts = dict.fromkeys(volumes[:3], "it is so") | dict.fromkeys(volumes[3:], "")
    assert say(texts) == "In run `a`, it is so."
    assert say(dict.fromkeys(volumes, "")) == ""
