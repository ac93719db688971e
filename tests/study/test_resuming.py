"""Runs that are killed, stopped, short of room, or two at once: nothing is lost, nothing is wrong.

The scripts run as users run them, with the compact SAM.
"""

import json
import random
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, chest, save_nifti
from faults import FAULTS, Child, break_everywhere, contents, finish, is_nightly

from sam_lungs.data.volumes import read_nifti, write_numpy
from sam_lungs.study.results import JOURNAL_NAME

SCRIPT = "process_image.py"
SLICES = 24
RUN = ("--model", "compact", "--device", "cpu", "--save_masks", "--output_folder", "out")


def pair(*names: str) -> list[str]:
    images, masks = ([f"{kind}_{name}.npy" for name in names] for kind in ("image", "masks"))
    return ["-i", *images, "-m", *masks]


@pytest.fixture
def folder(tmp_path):
    """A folder with two volumes as arrays, where the scripts run."""
    for name, size in (("a", (40, 56)), ("b", (56, 40))):
        for kind, array in zip(("image", "masks"), chest(*size, slices=SLICES), strict=True):
            nifti = save_nifti(tmp_path / f"{kind}_{name}.nii.gz", array)
            write_numpy(read_nifti(nifti), tmp_path / f"{kind}_{name}.npy")
    return tmp_path


_expected = {}


@pytest.fixture
def expected(folder):
    """What an undisturbed run over both volumes leaves."""
    if not _expected:
        finish(folder, SCRIPT, *pair("a", "b"), *RUN)
        _expected.update(results(folder))
        shutil.rmtree(folder / "out")
    assert len(_expected) == 2 * 4
    return _expected


def results(folder: Path) -> dict[str, object]:
    """All that a run leaves, but the command in `run.json`, which may name one volume or two."""
    found = contents(folder / "out")
    for name in found:
        if name.endswith("run.json"):
            del found[name]["command"]
    return found


def of(name: str, expected: dict[str, object]) -> dict[str, object]:
    """Of what both volumes leave that of one."""
    return {path: expected[path] for path in expected if path.startswith(f"image_{name}/")}


def recorded(folder: Path) -> int:
    """How many lines all journals have."""
    lines = 0
    for path in folder.rglob(JOURNAL_NAME):
        with suppress(FileNotFoundError):  # it was just finished
            lines += path.read_bytes().count(b"\n")
    return lines


def begin(lines: int, folder: Path, *arguments: object) -> Child:
    """Start the script and wait until so much is recorded, or it is over."""
    child = Child(folder, SCRIPT, *arguments)
    while not child.is_over() and recorded(folder) < lines:
        time.sleep(0.002)
    return child


def killed(lines: int, folder: Path, *arguments: object) -> None:
    """Start the script and kill it when so much is recorded."""
    child = begin(lines, folder, *arguments)
    child.send(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def test_killed_again_and_again_it_ends_like_one_that_was_not(folder, expected):
    rng = random.Random(0)
    for _ in range(100 if is_nightly() else 10):
        child = begin(recorded(folder) + rng.randint(0, SLICES), folder, *pair("a", "b"), *RUN)
        child.send(signal.SIGKILL)
        # Tables are whole or not there.
        for table in (folder / "out").rglob("*.csv"):
            assert table.read_bytes() == expected[str(table.relative_to(folder / "out"))]
        if child.wait() == 0:
            assert results(folder) == expected
            shutil.rmtree(folder / "out")
    finish(folder, SCRIPT, *pair("a", "b"), *RUN)
    assert results(folder) == expected


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_kind_stop_writes_the_slice_in_hand_and_says_how_to_go_on(
    folder, expected, number, status
):
    child = begin(6, folder, *pair("a"), *RUN)
    child.send(number)
    assert child.wait() == status
    done = recorded(folder) - 2  # the run and its session
    assert 4 <= done < SLICES - 1
    assert child.said()[-1] == (
        f"stopped: {done} of {SLICES - 1} slices of image_a are written; the same command goes on"
        " from there"
    )
    assert "Traceback" not in str(child.said())
    said = finish(folder, SCRIPT, *pair("a"), *RUN)
    assert said[-1].startswith(f"image_a: {SLICES - 1} of {SLICES - 1} slices, 0 s left, mean Dice")
    assert results(folder) == of("a", expected)


def test_asked_twice_it_stops_at_once_and_loses_nothing(folder, expected):
    child = begin(4, folder, *pair("a"), *RUN)
    child.send(signal.SIGTERM)
    time.sleep(0.005)
    child.send(signal.SIGTERM)
    assert child.wait() == -signal.SIGTERM
    finish(folder, SCRIPT, *pair("a"), *RUN)
    assert results(folder) == of("a", expected)


def test_two_at_once_on_one_folder(folder, expected):
    first = begin(3, folder, *pair("a", "b"), *RUN)
    second = Child(folder, SCRIPT, *pair("a", "b"), *RUN)
    assert second.wait() == 1
    refused, *_ = [line for line in second.said() if line.startswith("error: ")]
    assert f"image_a: process {first.pid} on " in refused
    assert "has been working on it since" in refused
    # It has done what the first had not begun.
    assert first.wait() in (0, 1)
    said = finish(folder, SCRIPT, *pair("a", "b"), *RUN)
    assert said == ["image_a: finished before, skipped", "image_b: finished before, skipped"]
    assert results(folder) == expected


def test_two_at_once_on_different_volumes_do_not_disturb_each_other(folder, expected):
    both = [Child(folder, SCRIPT, *pair(name), *RUN) for name in ("a", "b")]
    assert [child.wait() for child in both] == [0, 0]
    assert results(folder) == expected


def test_a_killed_process_holds_no_lock(folder, expected):
    killed(3, folder, *pair("a"), *RUN)
    finish(folder, SCRIPT, *pair("a"), *RUN)
    assert results(folder) == of("a", expected)


def test_what_was_finished_is_left_alone(folder):
    finish(folder, SCRIPT, *pair("a"), *RUN)
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*")}
    assert finish(folder, SCRIPT, *pair("a"), *RUN) == ["image_a: finished before, skipped"]
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*")} == before


def assert_another_run(folder: Path, *changed: object, words: str) -> None:
    before = contents(folder / "out")
    child = Child(folder, SCRIPT, *pair("a"), *RUN, *changed)
    assert child.wait() == 1
    (said,) = child.said()
    assert said.startswith("error: ")
    assert words in said
    assert "add --overwrite to replace it, or choose another --output_folder" in said
    assert contents(folder / "out") == before


@pytest.mark.parametrize("is_finished", [False, True])
def test_another_run_is_refused_and_says_what_differs(folder, is_finished):
    if is_finished:
        finish(folder, SCRIPT, *pair("a"), *RUN)
    else:
        killed(5, folder, *pair("a"), *RUN)
    assert_another_run(folder, "--window", "lung", words="(--window auto there, lung now)")
    assert_another_run(folder, "--no_box", words="(prompts' box True there, False now)")
    assert_another_run(folder, "--metrics", "dice,nsd", words="--metrics ['dice', 'jaccard'] there")
    assert_another_run(folder, "--debug", words="(--debug False there, True now)")
    for kind in ("image", "masks"):
        path = folder / f"{kind}_a.npy"
        whole = path.read_bytes()
        array = np.load(path)
        array[0, 0, 1] += 1
        # As a new conversion would.
        write_numpy(read_nifti(save_nifti(folder / "changed.nii", array)), path)
        assert_another_run(folder, words=f"({kind} ")
        path.with_name(f"{path.name}.json").unlink()
        path.write_bytes(whole)
        write_numpy(read_nifti(folder / f"{kind}_a.nii.gz"), path)
    if is_finished:
        table = folder / "out" / "image_a" / "raw_data.csv"
        whole = table.read_bytes()
        table.write_bytes(whole.replace(b"1", b"2", 1))
        assert_another_run(folder, words="raw_data.csv: is not what its run wrote")
        table.write_bytes(whole)
    finish(folder, SCRIPT, *pair("a"), *RUN)
    finish(folder, SCRIPT, *pair("a"), *RUN, "--window", "none", "--overwrite")
    (record,) = folder.rglob("run.json")
    assert json.loads(record.read_text())["options"]["window"] == "none"


def test_overwriting_that_was_killed_keeps_the_old_results_and_goes_on(folder, expected):
    finish(folder, SCRIPT, *pair("a"), *RUN)
    other = (*pair("a"), *RUN, "--window", "none")
    killed(5, folder, *other, "--overwrite")
    left = results(folder)
    assert left.pop(f"image_a/{JOURNAL_NAME}")
    assert left == of("a", expected)
    said = finish(folder, SCRIPT, *other)
    assert said[-1].startswith("image_a: 23 of 23 slices")
    again = results(folder)
    finish(folder, SCRIPT, *other, "--overwrite")
    assert results(folder) == again
    assert again.keys() == left.keys()
    assert again != left


@pytest.mark.parametrize("fault", FAULTS)
def test_every_write_may_be_the_last(tmp_path, fault):
    """Normally one write of three, others for each fault; nightly all, and of more files."""
    for kind, array in zip(("image", "masks"), chest(slices=4), strict=True):
        save_nifti(tmp_path / f"{kind}_a.nii.gz", array)
    command = [
        *(SCRIPT, "-i", "image_a.nii.gz", "-m", "masks_a.nii.gz", *RUN),
        *("--empty_slices", "nearest"),
        *(("--prompts", "paper,no_box") if is_nightly() else ()),
    ]
    tried = break_everywhere(tmp_path, "out", fault, *command)
    assert tried >= (60 if is_nightly() else 10)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_short_of_memory_it_says_so_or_is_right(folder, expected):
    """From too little to load PyTorch with to enough."""
    said = []
    for megabytes in range(1000, 8000, 500 if is_nightly() else 3000):
        limited = f"ulimit -v {megabytes}000; exec {sys.executable} {ROOT / SCRIPT} " + " ".join(
            [*pair("a"), *RUN]
        )
        done = subprocess.run(["bash", "-c", limited], cwd=folder, capture_output=True, text=True)
        said.append(done.stderr)
        assert "Traceback" not in done.stderr
        if done.returncode == 0:
            assert results(folder) == of("a", expected)
            shutil.rmtree(folder / "out")
    assert said[0].startswith("error: too little memory")
    assert done.returncode == 0
