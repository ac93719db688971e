import copy
import json

import pytest
from faults import damaged

from sam_lungs.study.results import JOURNAL_NAME, RUN_NAME, SliceResult, write_results
from sam_lungs.study.resume import CODE, AnotherRun, is_finished, recorded_slices, unfinished_run
from sam_lungs.utils.files import sha256_of
from sam_lungs.utils.provenance import code_sha256

RUN = {
    "command": ["process_image.py"],
    "options": {
        "model": "vit_l",
        "precision": "float32",
        "window": "auto",
        "metrics": ["jaccard", "dice"],
        "tolerance_mm": 1.0,
        "empty_slices": "skip",
        "save_masks": False,
        "debug": False,
        "strict_geometry": False,
        "embeddings_folder": None,
        "embeddings_precision": "float32",
        "batch_size": None,
        "output_folder": "results",
        "overwrite": False,
    },
    "protocol": {"points": "inside", "negative": "box_center", "box": True},
    "image": {"file": "image.npy", "sha256": "a" * 64, "conversion": "d" * 64},
    "masks": {"file": "masks.npy", "sha256": "b" * 64},
    "checkpoint": {"file": "vit_l.pth", "sha256": "c" * 64},
    "device": "cpu",
    "threads": 2,
    "versions": {"python": "3.11", "system": "Linux", "torch": "2.14", "numpy": "2.4"},
    "commit": "1234",
    "code_sha256": "e" * 64,
}


def changed(path: str, value: object) -> dict:
    run = copy.deepcopy(RUN)
    *folders, name = path.split("/")
    place = run
    for folder in folders:
        place = place[folder]
    place[name] = value
    return run


def finish(folder) -> None:
    write_results(folder, [SliceResult(0, 0.5, 2 / 3, 0.75, 10, 20)], RUN)


def begin(folder) -> None:
    with unfinished_run(folder, RUN, overwrite=False) as journal:
        journal.append({"slice": {"slice": 7}})


@pytest.mark.parametrize("begin", [begin, finish])
@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("options/model", "vit_b", "--model vit_l there, vit_b now"),
        ("options/precision", "bfloat16", "--precision"),
        ("options/window", "lung", "--window"),
        ("options/metrics", ["dice", "nsd"], "--metrics"),
        ("options/tolerance_mm", 2.0, "--tolerance_mm 1.0 there, 2.0 now"),
        ("options/empty_slices", "nearest", "--empty_slices"),
        ("options/save_masks", True, "--save_masks"),
        ("options/debug", True, "--debug"),
        ("options/strict_geometry", True, "--strict_geometry"),
        ("options/embeddings_folder", "kept", "--embeddings_folder"),
        ("options/embeddings_precision", "float16", "--embeddings_precision"),
        ("protocol/box", False, "prompts' box True there, False now"),
        ("image/sha256", "f" * 64, "image aaaaaaaaaaaa there, ffffffffffff now"),
        ("image/conversion", "f" * 64, "image conversion"),
        ("masks/sha256", "f" * 64, "masks"),
        ("masks/conversion", "f" * 64, "masks conversion None there, ffffffffffff now"),
        ("checkpoint/sha256", "f" * 64, "checkpoint"),
        ("device", "NVIDIA", "device"),
        ("threads", 4, "threads 2 there, 4 now"),
        ("versions/torch", "2.15", "torch 2.14 there, 2.15 now"),
        ("versions/scipy", "1.17", "scipy None there, 1.17 now"),
        ("code_sha256", "f" * 64, "code eeeeeeeeeeee there, ffffffffffff now"),
    ],
)
def test_whatever_decides_the_numbers_makes_it_another_run(tmp_path, begin, path, value, said):
    begin(tmp_path)
    with pytest.raises(AnotherRun) as refused:
        is_finished(tmp_path, changed(path, value))
    assert f"({said}" in str(refused.value)
    assert ";" not in str(refused.value).partition("(")[2].partition(")")[0]
    with unfinished_run(tmp_path, changed(path, value), overwrite=True) as journal:
        assert len(journal.records) == 2


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("command", ["other.py"]),
        ("options/batch_size", 4),
        ("options/output_folder", "elsewhere"),
        ("options/overwrite", True),
        ("options/metrics", ["dice", "jaccard"]),
        ("image/file", "moved.npy"),
        ("checkpoint/file", "moved.pth"),
        ("versions/python", "3.12"),
        ("versions/system", "another kernel"),
        ("commit", "5678"),
    ],
)
def test_what_decides_nothing_does_not(tmp_path, path, value):
    begin(tmp_path / "begun")
    assert not is_finished(tmp_path / "begun", changed(path, value))
    finish(tmp_path / "finished")
    assert is_finished(tmp_path / "finished", changed(path, value))


def test_a_run_goes_on_until_its_journal_is_discarded(tmp_path):
    assert not is_finished(tmp_path, RUN)
    begin(tmp_path)
    assert recorded_slices(tmp_path) == {7}
    with unfinished_run(tmp_path, RUN, overwrite=False) as journal:
        kinds = [next(iter(record)) for record in journal.records]
        assert kinds == ["run", "session", "slice", "session"]
        finish(tmp_path)
        assert not is_finished(tmp_path, RUN)
        journal.discard()
    assert is_finished(tmp_path, RUN)
    with unfinished_run(tmp_path, RUN, overwrite=False) as journal:
        assert journal is None
    assert not (tmp_path / JOURNAL_NAME).exists()


def test_who_is_at_work_is_named(tmp_path):
    with (
        unfinished_run(tmp_path, RUN, overwrite=False) as journal,
        pytest.raises(AnotherRun, match=f"process {journal.records[1]['session']['process']} on"),
        unfinished_run(tmp_path, RUN, overwrite=True),
    ):
        pass


def test_a_damaged_file_is_not_taken_for_finished(tmp_path):
    finish(tmp_path)
    for name in ("raw_data.csv", "results.csv"):
        whole = (tmp_path / name).read_bytes()
        for content in damaged(whole, lengths=30, flips=60):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(AnotherRun, match=f"{name}: is not what its run wrote"):
                is_finished(tmp_path, RUN)
        (tmp_path / name).write_bytes(whole)
    assert is_finished(tmp_path, RUN)


def test_a_damaged_record_is_refused_or_says_the_same(tmp_path):
    finish(tmp_path)
    path, refused = tmp_path / RUN_NAME, 0
    for content in damaged(path.read_bytes(), lengths=50, flips=500):
        path.write_bytes(content)
        try:
            # A byte may be of what decides nothing, such as the command.
            assert is_finished(tmp_path, RUN)
        except AnotherRun:
            refused += 1
    assert refused > 250


@pytest.mark.parametrize("record", [[], 3, {"options": 3}, {"image": []}, {"versions": "a"}])
def test_what_is_no_record_is_refused(tmp_path, record):
    (tmp_path / RUN_NAME).write_text(json.dumps(record))
    with pytest.raises(AnotherRun, match="not the record of a run"):
        is_finished(tmp_path, RUN)


def test_the_code_that_matters_is_there_and_its_order_counts():
    assert len(code_sha256(CODE)) == 64
    assert code_sha256(CODE) != code_sha256(CODE[::-1])
    assert sha256_of.__module__.rpartition(".")[2] not in CODE  # how files are written matters not
