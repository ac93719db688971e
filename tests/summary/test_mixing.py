"""Volumes that were made in different ways are not averaged."""

import csv
from dataclasses import replace
from itertools import permutations

import pytest
from results_folders import RECORD, write_volume

from sam_lungs.study.options import Options
from sam_lungs.study.results import SliceResult
from sam_lungs.study.run_record import RunRecord
from sam_lungs.study.score import UNKNOWN_SOURCE
from sam_lungs.summary.join import TABLES, join_results, write_tables
from sam_lungs.summary.mixing import deciding_settings
from sam_lungs.utils.errors import InputError

SLICES = [SliceResult(0, 0.5, 2 / 3, 0.75, 10, 20, 5)]
MODEL = {"preprocessing": "common", "mask_choice": "token 0", "mask_rule": "crop"}
FULL = replace(
    RECORD,
    segmenter=RECORD.segmenter | MODEL,
    options=RECORD.options
    | {
        "metrics": ["jaccard", "dice", "nsd"],
        "tolerance_mm": [1.0],
        "objects": "together",
        "empty_slices": "skip",
    },
    window_hu=[-1400.0, 100.0],
)
SCORED = replace(
    FULL,
    segmenter={"model": "nnunet", **UNKNOWN_SOURCE},
    protocol={},
    options={"align_predictions": "affine", "objects": "together", "metrics": ["jaccard", "dice"]},
    predictions=[{"file": "a.nii.gz", "sha256": "1"}],
)
REPLAYED = {"prompts_file": "ann.csv", "sha256": "1", "every": 1}


def changed(record: RunRecord, **fields: object) -> RunRecord:
    """Return the record with other fields; those that are dictionaries are updated."""
    updated = {
        name: getattr(record, name) | value if isinstance(value, dict) else value
        for name, value in fields.items()
    }
    return replace(record, **updated)


def write(folder, *records: RunRecord) -> None:
    for image, record in zip("abcdef", records, strict=False):
        write_volume(folder / f"image_{image}", SLICES, record)


@pytest.mark.parametrize(
    ("fields", "name", "values"),
    [
        ({"options": {"tolerance_mm": [10.0]}}, "--tolerance_mm", "1.0 10.0"),
        ({"options": {"tolerance_mm": 1.0}}, None, ""),  # as an older version wrote it
        ({"options": {"metrics": ["jaccard", "dice"]}}, "--metrics", "nsd"),
        ({"options": {"precision": "bfloat16"}}, "--precision", "float32 bfloat16"),
        ({"options": {"objects": "apart"}}, "--objects", "together apart"),
        ({"options": {"empty_slices": "nearest"}}, "--empty_slices", "skip nearest"),
        ({"options": {"of_a_later_version": 2}}, None, ""),
        ({"protocol": {"box": False}}, "prompts: box", "yes no"),
        ({"protocol": {"points": "none"}}, "prompts: points", "inside none"),
        ({"protocol": {"every": 5}}, "prompts: every", "1 5"),
        ({"protocol": REPLAYED}, "prompts", "rule file"),
        ({"segmenter": {"weights": {"other.pth": "0cc"}}}, "weights", "vit_l (3adc) (0cc)"),
        ({"segmenter": {"weights": {"renamed.pth": "3adc"}, "model": "renamed"}}, None, ""),
        ({"segmenter": {"weights": {}, "model": "box"}}, "weights", "(3adc) box (none)"),
        ({"segmenter": {"preprocessing": "native"}}, "preprocessing", "common native"),
        ({"segmenter": {"mask_choice": "best score"}}, "mask", "token best"),
        ({"segmenter": {"mask_rule": "direct"}}, "rule of the mask", "crop direct"),
        ({"reading": {"align": "affine"}}, "--align", "auto affine"),
        ({"reading": {"objects": {"left": [10, 11]}}}, "--labels", "left 10+11"),
        ({"reading": {"window": "none"}, "window_hu": None}, "--window", "auto none"),
        ({"reading": {"window": "lung"}}, None, ""),  # gave the same window
        ({"window_hu": None}, None, ""),  # `auto` for the 8-bit half of the paper's dataset
        ({"numbers_version": 2}, "numbers version", "1 2"),
        ({"image": {"sha256": "0"}, "masks": [{"file": "m.npy", "sha256": "0"}]}, None, ""),
        ({"reading": {"spacing_mm": [1.0, 2.0], "series": "1.2"}}, None, ""),
        ({"options": {"save_masks": True, "debug": True, "draw": ["mask"]}}, None, ""),
        ({"environment": {"device": "cuda", "code_sha256": "0"}, "patient": "p"}, None, ""),
        ({"findings": [{"name": "offset", "message": "", "is_allowed": False}]}, None, ""),
    ],
)
def test_each_setting_that_decides_the_numbers_must_be_equal(tmp_path, fields, name, values):
    write(tmp_path, FULL, changed(FULL, **fields))
    if name is None:
        write_tables(join_results(tmp_path), tmp_path)
        assert not any("mixed" in path.read_text() for path in tmp_path.glob("*.csv"))
        return
    with pytest.raises(InputError) as caught:
        join_results(tmp_path)
    message = str(caught.value)
    assert message.count("\n") == 0
    for word in (f"has {name} ", "image_a", "image_b", *values.split(), "not averaged; "):
        assert word in message
    joined = join_results(tmp_path, allow_mixed=True)
    for table in (joined.summary, joined.intervals):
        assert set(table["mixed"]) == {name}
    assert "mixed" not in joined.slices


def test_every_option_that_decides_is_compared_or_left_out_on_purpose():
    record = replace(FULL, options=dict.fromkeys(_deciding_options(), "x"))
    left_out = _deciding_options() - {
        name.removeprefix("--") for name in deciding_settings(record) if name.startswith("--")
    }
    assert left_out == {"debug", "draw", "save_masks", "mask_choice", "preprocessing"}


def _deciding_options() -> set[str]:
    fields = Options.__dataclass_fields__.values()
    in_reading = {"window", "align", "labels", "spacing_mm", "series"}
    return {each.name for each in fields if each.metadata["decides"]} - in_reading


def test_the_tables_of_an_unmixed_study_have_the_columns_of_before(tmp_path):
    write(tmp_path, FULL, FULL)
    write_tables(join_results(tmp_path), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")}
    assert len(before) == len(TABLES) - 1
    write_tables(join_results(tmp_path, allow_mixed=True), tmp_path)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*.csv")} == before
    header = before["intervals.csv"].splitlines()[0].split(b",")
    assert header[-1] == b"exposure"


def test_volumes_with_and_without_a_record_are_not_averaged(tmp_path):
    write(tmp_path, FULL)
    published = tmp_path / "image_b" / "raw_data_2023-05-27_09-43-55.csv"
    published.parent.mkdir()
    published.write_text("slice,jaccard,dice\n0,0.5,0.6\n")
    with pytest.raises(InputError, match=r"image_a has run.json there, but image_b"):
        join_results(tmp_path)
    assert set(join_results(tmp_path, allow_mixed=True).intervals["mixed"]) == {"run.json"}


def test_what_an_older_record_does_not_hold_is_no_difference(tmp_path):
    options = {"precision": "float32"}
    write(tmp_path, FULL, replace(FULL, options=options, segmenter=RECORD.segmenter))
    assert "mixed" not in join_results(tmp_path).intervals


@pytest.mark.parametrize("order", list(permutations(range(3))))
def test_a_case_without_predictions_is_joined_with_those_of_a_run(tmp_path, order):
    made_by = replace(FULL, options=FULL.options | SCORED.options, predictions=SCORED.predictions)
    empty = replace(SCORED, predictions=[], options=SCORED.options | {"objects": "apart"})
    records = [made_by, empty, made_by]
    write(tmp_path, *(records[each] for each in order))
    assert "mixed" not in join_results(tmp_path).intervals


def test_scored_masks_are_not_averaged_with_a_run(tmp_path):
    write(tmp_path, FULL, SCORED)
    with pytest.raises(InputError, match=r"has weights vit_l .*nnunet .*predictions"):
        join_results(tmp_path)


def test_prompts_of_a_file_are_those_of_each_volume(tmp_path):
    records = [replace(FULL, protocol=REPLAYED | {"sha256": str(number)}) for number in range(2)]
    write(tmp_path, *records)
    assert "mixed" not in join_results(tmp_path).intervals


def test_scripts_and_report_say_what_is_mixed(run, tmp_path):
    other = changed(FULL, options={"tolerance_mm": [10.0]}, protocol={"box": False})
    write(tmp_path, FULL, other, FULL)
    for script in ("join_results.py", "make_report.py"):
        done = run(script, "-r", tmp_path)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "1.0, but image_b has 10.0 (differs too: prompts: box)" in done.stderr
    assert run("make_report.py", "-r", tmp_path, "--allow_mixed", "--methods").returncode == 0
    page = (tmp_path / "report.html").read_text("utf-8")
    top = page[: page.index("<h2>Results</h2>")]
    assert "which --allow_mixed permitted" in top
    assert "other --tolerance_mm, prompts: box" in top
    readme = (tmp_path / "methods" / "tables" / "README.md").read_text("utf-8")
    assert "see docs/results.md" not in readme
    assert run("join_results.py", "-r", tmp_path, "--allow_mixed").returncode == 0
    with (tmp_path / "results.csv").open() as file:
        assert {row["mixed"] for row in csv.DictReader(file)} == {"--tolerance_mm, prompts: box"}
