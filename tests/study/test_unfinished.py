"""Which results are finished, and which slices an unfinished run keeps."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from faults import damaged

from sam_lungs.prompts.protocols import PromptProtocol
from sam_lungs.study import unfinished
from sam_lungs.study.layout import RUN_NAME, UNFINISHED_FOLDER
from sam_lungs.study.options import Options
from sam_lungs.study.process import new_record
from sam_lungs.study.results import SliceResult, slices_table, write_volume_tables
from sam_lungs.study.run_record import RunRecord
from sam_lungs.study.unfinished import (
    LOG_NAME,
    RunMismatchError,
    UnfinishedRun,
    finished_record,
    kept_slices,
)
from sam_lungs.utils.errors import InputError

RECORD = RunRecord(
    numbers_version=1,
    image={"file": "image.npy", "sha256": "a" * 64, "conversion": "d" * 64},
    masks=[{"file": "masks.npy", "sha256": "b" * 64}],
    reading={
        "window": "auto",
        "align": "auto",
        "objects": None,
        "spacing_mm": None,
        "series": None,
    },
    segmenter={"model": "vit_l", "weights": {"l.pth": "c" * 64}, "preprocessing": "as SAM"},
    options={
        "precision": "float32",
        "metrics": ["jaccard", "dice"],
        "tolerance_mm": [1.0],
        "empty_slices": "skip",
        "draw": ["mask", "contours", "points", "box"],
        "mask_choice": "model",
        "preprocessing": "common",
        "objects": "together",
        "save_masks": False,
        "debug": False,
        "embeddings_precision": "float32",
    },
    other_options={"model": "vit_l", "batch_size": None, "output_folder": "results"},
    protocol={"points": "inside", "negative": "box_center", "box": True},
    environment={
        "device": "cpu",
        "threads": 2,
        "python": "3.11",
        "system": "Linux",
        "packages": {"torch": "2.14", "numpy": "2.4"},
        "code_sha256": "e" * 64,
        "commit": "1234",
    },
    command=["process_image.py"],
)
LINES = [
    {"index": 3, "seconds": 0.5, "slice": {"dice": 0.1 + 0.2, "hd95_mm": None}},
    {"index": 4, "seconds": 0.5, "slice": {"dice": 1e-300}},
    {"index": 9, "seconds": 0.5, "empty_slice": {"predicted_pixels": 7}},
]
MASK = np.random.default_rng(0).random((13, 7)) < 0.5


@pytest.fixture(autouse=True)
def _without_sync(monkeypatch):
    """Save time: the tests write thousands of logs."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def changed(path: str, value: object) -> RunRecord:
    """A record with one value changed; path: field/key/key."""
    content = json.loads(json.dumps(asdict(RECORD)))
    *folders, name = path.split("/")
    place = content
    for folder in folders:
        place = place[int(folder) if isinstance(place, list) else folder]
    place[name] = value
    return RunRecord(**content)


def finish(folder: Path) -> None:
    write_volume_tables(folder, slices_table([SliceResult(0, 0.5, 2 / 3, 0.75, 10, 20)]), {})
    RECORD.write(folder, ["raw_data.csv", "results.csv"])


def begin(folder: Path) -> None:
    with UnfinishedRun(folder, RECORD) as log:
        for line in LINES:
            log.append(line)


def log_path(folder: Path) -> Path:
    return folder / UNFINISHED_FOLDER / LOG_NAME


@pytest.mark.parametrize("begin", [begin, finish])
@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("numbers_version", 2, "numbers version 1 there, 2 now"),
        ("options/precision", "bfloat16", "--precision float32 there, bfloat16 now"),
        ("reading/window", "lung", "--window auto there, lung now"),
        ("reading/align", "voxels", "--align auto there, voxels now"),
        ("reading/objects", {"left": [1, 2]}, "--labels None there, {'left': [1, 2]} now"),
        ("reading/spacing_mm", [1.0, 2.0], "--spacing_mm None there, [1.0, 2.0] now"),
        ("reading/series", "1.2.3", "--series None there, 1.2.3 now"),
        ("options/metrics", ["jaccard", "dice", "nsd"], "--metrics"),
        ("options/tolerance_mm", [2.0], "--tolerance_mm [1.0] there, [2.0] now"),
        ("options/empty_slices", "nearest", "--empty_slices"),
        ("options/save_masks", True, "--save_masks"),
        ("options/debug", True, "--debug"),
        ("options/embeddings_precision", "float16", "--embeddings_precision"),
        ("protocol/box", False, "prompts: box True there, False now"),
        ("image/sha256", "f" * 64, "image sha256 aaaaaaaaaaaa there, ffffffffffff now"),
        ("image/conversion", "f" * 64, "image conversion"),
        ("masks/0/sha256", "f" * 64, "masks sha256"),
        ("masks/0/conversion", "f" * 64, "masks conversion None there, ffffffffffff now"),
        ("segmenter/weights", {"l.pth": "f" * 64}, "weights"),
        ("segmenter/preprocessing", "as SAM 2", "preprocessing"),
    ],
)
def test_a_run_with_another_fingerprint_is_refused(tmp_path, begin, path, value, message):
    begin(tmp_path)
    with pytest.raises(RunMismatchError) as refused:
        finished_record(tmp_path, changed(path, value))
    assert f"({message}" in str(refused.value)
    # It names only this difference.
    assert ";" not in str(refused.value).partition("(")[2].partition(")")[0]
    assert finished_record(tmp_path, changed(path, value), overwrite=True) is None
    with UnfinishedRun(tmp_path, changed(path, value)) as log:
        assert log.lines == []
        assert log.discarded_slices == 0


@pytest.mark.parametrize(
    ("path", "value", "is_same"),
    [
        ("command", ["other.py"], True),
        ("environment/commit", "5678", True),
        ("environment/device", "a GPU", False),
        ("environment/packages", {"torch": "2.15"}, False),
        ("segmenter/packages", {"transformers": "5.0"}, False),
        ("environment/code_sha256", "f" * 64, False),
        ("reading/window", "lung", False),
    ],
)
def test_overwrite_keeps_only_finished_results_of_exactly_this_run(tmp_path, path, value, is_same):
    finish(tmp_path)
    found = finished_record(tmp_path, changed(path, value), overwrite=True)
    assert (found is not None) == is_same
    (tmp_path / "raw_data.csv").write_text("changed")
    assert finished_record(tmp_path, changed(path, value), overwrite=True) is None


def test_a_log_of_another_version_is_discarded(tmp_path):
    begin(tmp_path)
    first, *others = log_path(tmp_path).read_text().splitlines(keepends=True)
    del (content := json.loads(first))["reading"]
    log_path(tmp_path).write_text("".join([json.dumps(content) + "\n", *others]))
    with pytest.raises(RunMismatchError, match="not a run record of this version"):
        finished_record(tmp_path, RECORD)
    assert finished_record(tmp_path, RECORD, overwrite=True) is None
    with UnfinishedRun(tmp_path, RECORD) as log:
        assert log.lines == []


def test_a_resumed_run_takes_what_is_about_the_files_from_the_new_command(tmp_path):
    begin(tmp_path)
    dataset = {"file": "paper.yml", "sha256": "c" * 64}
    later = replace(
        RECORD, patient="p", subset="s", dataset=dataset, findings=[{"name": "saturated"}]
    )
    with UnfinishedRun(tmp_path, later) as log:
        assert log.record == later
        assert log.lines == LINES


def test_every_masks_file_is_part_of_the_fingerprint(tmp_path):
    finish(tmp_path)
    two = replace(RECORD, masks=[*RECORD.masks, {"file": "right.npy", "sha256": "9" * 64}])
    with pytest.raises(RunMismatchError) as refused:
        finished_record(tmp_path, two)
    assert "(masks file 2 sha256 None there, 999999999999 now)" in str(refused.value)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("command", ["other.py"]),
        ("other_options/model", "the same weights by another name"),
        ("other_options/batch_size", 4),
        ("other_options/output_folder", "elsewhere"),
        ("other_options/overwrite", True),
        ("other_options/embeddings_folder", "kept"),
        ("image/file", "moved.npy"),
        ("patient", "another"),
        ("subset", "another"),
        ("findings", [{"name": "saturated", "message": "", "is_allowed": True}]),
        ("segmenter/weights", {"moved.pth": "c" * 64}),
        ("environment/device", "a GPU"),
        ("environment/threads", 4),
        ("environment/packages", {"torch": "2.15"}),
        ("environment/python", "3.12"),
        ("environment/system", "another kernel"),
        ("environment/commit", "5678"),
        ("environment/code_sha256", "f" * 64),
    ],
)
def test_other_values_do_not_change_the_fingerprint(tmp_path, path, value):
    begin(tmp_path / "begun")
    assert finished_record(tmp_path / "begun", changed(path, value)) is None
    finish(tmp_path / "finished")
    assert finished_record(tmp_path / "finished", changed(path, value))


@pytest.mark.parametrize(
    ("path", "value", "kept"),
    [
        ("environment/device", "a GPU", 0),
        ("environment/threads", 4, 0),
        ("environment/packages", {"torch": "2.15"}, 0),
        ("segmenter/packages", {"transformers": "5.0"}, 0),
        ("environment/python", "3.12", 0),
        ("environment/code_sha256", "f" * 64, 0),
        ("environment/commit", "5678", 3),
        ("environment/system", "another kernel", 3),
        ("other_options/batch_size", 4, 3),
    ],
)
def test_an_unfinished_run_keeps_its_slices_only_in_the_same_environment(
    tmp_path, path, value, kept
):
    begin(tmp_path)
    with UnfinishedRun(tmp_path, changed(path, value)) as log:
        assert len(log.lines) == kept
        assert log.discarded_slices == 3 - kept
        log.append(LINES[0])
    assert len(kept_slices(tmp_path, changed(path, value))) == max(kept, 1)
    assert len(kept_slices(tmp_path, RECORD)) == kept


def test_a_record_has_the_options_that_decide_the_results_in_one_field():
    options = Options([Path("image.npy")], [Path("masks.npy")])
    record = new_record(*options.case_files, {}, [], {}, options, PromptProtocol())
    assert record.reading == RECORD.reading
    assert record.options.keys() == RECORD.options.keys()
    assert record.other_options.keys() > RECORD.other_options.keys()
    names = {"image_file_path", "cases", *RECORD.reading, "labels"}
    assert not record.other_options.keys() & names


def test_a_run_is_unfinished_until_its_log_is_discarded(tmp_path):
    assert finished_record(tmp_path, RECORD) is None
    begin(tmp_path)
    assert kept_slices(tmp_path, RECORD) == {3, 4, 9}
    with UnfinishedRun(tmp_path, RECORD) as log:
        assert log.lines == LINES
        finish(tmp_path)
        assert finished_record(tmp_path, RECORD) is None
        log.discard()
    assert finished_record(tmp_path, RECORD)
    assert not (tmp_path / UNFINISHED_FOLDER).exists()


def test_the_log_is_synced_every_ten_seconds_and_each_line_is_written_at_once(
    tmp_path, monkeypatch
):
    now, synced = [0.0], []
    monkeypatch.setattr(unfinished.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(unfinished, "sync", lambda path: synced.append(now[0]))
    with UnfinishedRun(tmp_path, RECORD) as log:
        for index in range(100):
            now[0] += 0.5
            log.append({"index": index})
            assert log_path(tmp_path).read_bytes().endswith(b'{"index": %d}\n' % index)
    assert synced == [10.5, 21, 31.5, 42]


def test_a_mask_is_read_back_and_a_damaged_one_is_none(tmp_path):
    with UnfinishedRun(tmp_path, RECORD) as log:
        log.append(LINES[0], MASK)
        np.testing.assert_array_equal(log.read_mask(3), MASK)
        assert log.read_mask(3).dtype == bool
        (path,) = (tmp_path / UNFINISHED_FOLDER).rglob("*.png")
        whole = path.read_bytes()
        for content in damaged(whole, lengths=20, flips=0):
            path.write_bytes(content)
            mask = log.read_mask(3)
            # The last bytes of a PNG hold no pixels.
            assert mask is None or (mask == MASK).all()
        path.unlink()
        assert log.read_mask(3) is None


def test_a_log_cut_at_any_byte_keeps_its_complete_lines(tmp_path):
    begin(tmp_path)
    path = log_path(tmp_path)
    content = path.read_bytes()
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    assert len(ends) == 4
    # The first line is the record.
    for length in [*range(0, ends[0], 50), *range(ends[0] - 2, len(content) + 1)]:
        path.write_bytes(content[:length])
        whole = max(sum(end <= length for end in ends) - 1, 0)
        with UnfinishedRun(tmp_path, RECORD) as log:
            assert log.lines == LINES[:whole]
            for line in LINES[whole:]:
                log.append(line)
        assert path.read_bytes() == content


def test_a_new_run_does_not_keep_an_old_log_that_cannot_be_removed(tmp_path, monkeypatch):
    begin(tmp_path)
    monkeypatch.setattr(unfinished.shutil, "rmtree", lambda folder, ignore_errors: None)
    other = changed("environment/threads", 4)
    with UnfinishedRun(tmp_path, other) as log:
        log.append(LINES[0])
    assert kept_slices(tmp_path, other) == {LINES[0]["index"]}


@pytest.mark.parametrize("line", [b"3", b"[]", b'"text"', b'{"seconds": 1}'])
def test_a_line_that_is_no_slice_ends_the_log(tmp_path, line):
    begin(tmp_path)
    content = log_path(tmp_path).read_bytes()
    log_path(tmp_path).write_bytes(content + line + b"\n")
    with UnfinishedRun(tmp_path, RECORD) as log:
        assert log.lines == LINES
    assert log_path(tmp_path).read_bytes() == content


def test_zeros_that_a_power_loss_leaves_at_the_end_are_dropped(tmp_path):
    begin(tmp_path)
    content = log_path(tmp_path).read_bytes()
    log_path(tmp_path).write_bytes(content + b"\0" * 4096)
    with UnfinishedRun(tmp_path, RECORD) as log:
        assert log.lines == LINES
    assert log_path(tmp_path).read_bytes() == content


def test_a_damaged_table_is_refused(tmp_path):
    finish(tmp_path)
    for name in ("raw_data.csv", "results.csv"):
        whole = (tmp_path / name).read_bytes()
        for content in damaged(whole, lengths=30, flips=60):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(RunMismatchError, match=f"{name}: has changed"):
                finished_record(tmp_path, RECORD)
        (tmp_path / name).write_bytes(whole)
    assert finished_record(tmp_path, RECORD)


def test_a_damaged_run_record_is_refused_or_has_the_same_fingerprint(tmp_path):
    finish(tmp_path)
    path, refused = tmp_path / RUN_NAME, 0
    for content in damaged(path.read_bytes(), lengths=50, flips=500):
        path.write_bytes(content)
        try:
            # The byte may belong to a value outside the fingerprint, such as the command.
            assert finished_record(tmp_path, RECORD)
        except RunMismatchError:
            refused += 1
    assert refused > 200


@pytest.mark.parametrize(
    "content",
    [
        *([], 3, {}),
        {**asdict(RECORD), "image": []},
        {**asdict(RECORD), "options": 3},
        {**asdict(RECORD), "masks": RECORD.masks[0]},
        {**asdict(RECORD), "masks": ["masks.npy"]},
        {**asdict(RECORD), "patient": 3},
        {name: value for name, value in asdict(RECORD).items() if name != "reading"},
    ],
)
def test_other_json_is_refused(tmp_path, content):
    (tmp_path / RUN_NAME).write_text(json.dumps(content))
    with pytest.raises(RunMismatchError, match="not a run record"):
        finished_record(tmp_path, RECORD)
    with pytest.raises(InputError, match="not a run record"):
        RunRecord.read(tmp_path)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("segmenter/weights", ["a" * 64]),
        ("segmenter/weights", {"tiny.pth": 1, "other.pth": "a"}),
        ("files", None),
        ("files", {}),
        ("files", ["raw_data.csv"]),
    ],
)
def test_a_run_record_without_its_hashes_is_refused(tmp_path, path, value):
    finish(tmp_path)
    content = json.loads((tmp_path / RUN_NAME).read_text())
    *folder, name = path.split("/")
    (content[folder[0]] if folder else content)[name] = value
    (tmp_path / RUN_NAME).write_text(json.dumps(content))
    with pytest.raises(RunMismatchError, match="not a run record"):
        finished_record(tmp_path, RECORD)


def test_a_record_without_the_dataset_file_of_an_earlier_version_is_read(tmp_path):
    finish(tmp_path)
    content = json.loads((tmp_path / RUN_NAME).read_text())
    del content["dataset"]
    (tmp_path / RUN_NAME).write_text(json.dumps(content))
    later = replace(RECORD, dataset={"file": "paper.yml", "sha256": "c" * 64})
    assert finished_record(tmp_path, later).dataset is None


def test_a_record_of_a_later_version_is_read(tmp_path):
    finish(tmp_path)
    content = json.loads((tmp_path / RUN_NAME).read_text())
    (tmp_path / RUN_NAME).write_text(json.dumps({**content, "later": 1}))
    assert replace(RunRecord.read(tmp_path), files=None) == RECORD


def test_a_record_is_read_back_with_the_hashes_of_the_files(tmp_path):
    finish(tmp_path)
    there = RunRecord.read(tmp_path)
    assert there.files.keys() == {"raw_data.csv", "results.csv"}
    assert replace(there, files=None) == RECORD
    assert there.changed_file(tmp_path) is None


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be read"):
        UnfinishedRun(tmp_path / "file" / "a", RECORD)
    log_path(tmp_path).mkdir(parents=True)
    with pytest.raises(InputError, match="cannot be read"):
        finished_record(tmp_path, RECORD)
