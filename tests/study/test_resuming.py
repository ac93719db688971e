"""Fault-injection tests of studies: killed, interrupted, short of space or memory, two at once.

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
from faults import FAULTS, Child, contents, finish, inject_faults, is_nightly, wait_for

from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.nifti import read_nifti
from sam_lungs.study.layout import UNFINISHED_FOLDER
from sam_lungs.study.unfinished import LOG_NAME

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
    """The results of an uninterrupted run over both volumes."""
    if not _expected:
        finish(folder, SCRIPT, *pair("a", "b"), *RUN)
        _expected.update(results(folder))
        shutil.rmtree(folder / "out")
    assert len(_expected) == 2 * 4
    return _expected


def results(folder: Path) -> dict[str, object]:
    """The results of a run, without the command and --overwrite in `run.json`."""
    found = contents(folder / "out")
    for name in found:
        if name.endswith("run.json"):
            del found[name]["command"], found[name]["other_options"]["overwrite"]
    return found


def of(name: str, expected: dict[str, object]) -> dict[str, object]:
    """The results of one of the volumes."""
    return {path: expected[path] for path in expected if path.startswith(f"image_{name}/")}


def recorded(folder: Path) -> int:
    """The number of slices in all logs."""
    lines = 0
    for path in folder.glob(f"out/*/{UNFINISHED_FOLDER}/{LOG_NAME}"):
        with suppress(FileNotFoundError):  # the run has just finished
            lines += max(path.read_bytes().count(b"\n") - 1, 0)
    return lines


def begin(lines: int, folder: Path, *arguments: object) -> Child:
    """Start the script; wait until this number of slices is recorded, or until it ends."""
    child = Child(folder, SCRIPT, *arguments)
    while not child.has_ended() and recorded(folder) < lines:
        time.sleep(0.002)
    return child


def killed(lines: int, folder: Path, *arguments: object) -> None:
    """Start the script and kill it when this number of slices is recorded."""
    child = begin(lines, folder, *arguments)
    child.send(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL


def test_a_run_that_is_killed_many_times_ends_with_the_same_results(folder, expected):
    rng = random.Random(0)
    for _ in range(100 if is_nightly() else 10):
        child = begin(recorded(folder) + rng.randint(0, SLICES), folder, *pair("a", "b"), *RUN)
        child.send(signal.SIGKILL)
        # Tables are whole or absent.
        for table in (folder / "out").rglob("*.csv"):
            assert table.read_bytes() == expected[str(table.relative_to(folder / "out"))]
        if child.wait() == 0:
            assert results(folder) == expected
            shutil.rmtree(folder / "out")
    finish(folder, SCRIPT, *pair("a", "b"), *RUN)
    assert results(folder) == expected


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_the_run_within_a_second_and_the_same_command_resumes(
    folder, expected, number, status
):
    child = begin(4, folder, *pair("a"), *RUN)
    child.send(number)
    sent = time.monotonic()
    assert child.wait() == status
    assert time.monotonic() - sent < 1
    assert child.output_lines()[-1] == (
        "interrupted: finished work is kept; to resume, run the same command again"
    )
    done = recorded(folder)
    assert 3 <= done < SLICES - 1
    lines = finish(folder, SCRIPT, *pair("a"), *RUN)
    assert lines[-1].startswith(
        f"image_a: {SLICES - 1} of {SLICES - 1} slices, 0 s left, mean Dice"
    )
    assert results(folder) == of("a", expected)


def test_two_processes_on_one_folder(folder, expected):
    first = begin(3, folder, *pair("a", "b"), *RUN)
    second = Child(folder, SCRIPT, *pair("a", "b"), *RUN)
    assert (first.wait(), second.wait()) == (0, 0)
    # The second process has processed the other volume.
    assert "image_a: in progress in another process, skipped" in second.output_lines()
    lines = finish(folder, SCRIPT, *pair("a", "b"), *RUN)
    assert lines == ["image_a: finished before, skipped", "image_b: finished before, skipped"]
    assert results(folder) == expected


def test_two_processes_on_different_volumes_give_the_same_results(folder, expected):
    both = [Child(folder, SCRIPT, *pair(name), *RUN) for name in ("a", "b")]
    assert [child.wait() for child in both] == [0, 0]
    assert results(folder) == expected


def test_a_kill_releases_the_lock(folder, expected):
    killed(3, folder, *pair("a"), *RUN)
    finish(folder, SCRIPT, *pair("a"), *RUN)
    assert results(folder) == of("a", expected)


def test_finished_results_are_not_written_again(folder):
    finish(folder, SCRIPT, *pair("a"), *RUN)
    before = {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*")}
    assert finish(folder, SCRIPT, *pair("a"), *RUN) == ["image_a: finished before, skipped"]
    assert {path: path.stat().st_mtime_ns for path in (folder / "out").rglob("*")} == before


def assert_another_run(folder: Path, *changed: object, words: str) -> None:
    before = contents(folder / "out")
    child = Child(folder, SCRIPT, *pair("a"), *RUN, *changed)
    assert child.wait() == 1
    (line,) = child.output_lines()
    assert line.startswith("error: ")
    assert words in line
    assert "add --overwrite to replace it, or choose another --output_folder" in line
    assert contents(folder / "out") == before


@pytest.mark.parametrize("is_finished", [False, True])
def test_another_run_is_refused_and_the_difference_is_named(folder, is_finished):
    if is_finished:
        finish(folder, SCRIPT, *pair("a"), *RUN)
    else:
        killed(5, folder, *pair("a"), *RUN)
    assert_another_run(folder, "--window", "lung", words="(--window auto there, lung now)")
    assert_another_run(folder, "--no_box", words="(prompts: box True there, False now)")
    assert_another_run(folder, "--metrics", "dice,nsd", words="--metrics ['jaccard', 'dice'] there")
    assert_another_run(folder, "--debug", words="(--debug False there, True now)")
    for kind in ("image", "masks"):
        path = folder / f"{kind}_a.npy"
        whole = path.read_bytes()
        array = np.load(path)
        array[0, 0, 1] += 1
        # Convert it again, so that the sidecar fits.
        write_numpy(read_nifti(save_nifti(folder / "changed.nii", array)), path)
        assert_another_run(folder, words=f"({kind} ")
        path.with_name(f"{path.name}.json").unlink()
        path.write_bytes(whole)
        write_numpy(read_nifti(folder / f"{kind}_a.nii.gz"), path)
    if is_finished:
        table = folder / "out" / "image_a" / "raw_data.csv"
        whole = table.read_bytes()
        table.write_bytes(whole.replace(b"1", b"2", 1))
        assert_another_run(folder, words="raw_data.csv: has changed since it was written")
        table.write_bytes(whole)
    finish(folder, SCRIPT, *pair("a"), *RUN)
    finish(folder, SCRIPT, *pair("a"), *RUN, "--window", "none", "--overwrite")
    (record,) = folder.rglob("run.json")
    assert json.loads(record.read_text())["reading"]["window"] == "none"


def test_a_killed_run_with_overwrite_keeps_the_old_results_and_resumes(folder, expected):
    finish(folder, SCRIPT, *pair("a"), *RUN)
    other = (*pair("a"), *RUN, "--window", "none")
    killed(5, folder, *other, "--overwrite")
    left = {
        path: content for path, content in results(folder).items() if UNFINISHED_FOLDER not in path
    }
    assert left == of("a", expected)
    lines = finish(folder, SCRIPT, *other)
    assert lines[-1].startswith("image_a: 23 of 23 slices")
    again = results(folder)
    assert again.keys() == left.keys()
    assert again != left
    finish(folder, SCRIPT, *pair("a"), *RUN, "--overwrite")
    assert results(folder) == of("a", expected)


def test_the_same_command_with_overwrite_resumes_a_killed_one(folder, expected):
    other = (*pair("a", "b"), *RUN, "--window", "none")
    finish(folder, SCRIPT, *other)
    command = (*pair("a", "b"), *RUN, "--overwrite")
    child = Child(folder, SCRIPT, *command)
    wait_for(folder / "out" / "image_b" / UNFINISHED_FOLDER / LOG_NAME, child)
    child.send(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert of("a", results(folder)) == of("a", expected)
    lines = finish(folder, SCRIPT, *command)
    assert lines[0] == "image_a: finished before, skipped"
    assert results(folder) == expected


@pytest.mark.parametrize("fault", FAULTS)
def test_after_a_fault_at_any_write_the_same_command_resumes(tmp_path, fault):
    """A different third of the writes for each fault; nightly every write and two protocols."""
    for kind, array in zip(("image", "masks"), chest(slices=4), strict=True):
        save_nifti(tmp_path / f"{kind}_a.nii.gz", array)
    command = [
        *(SCRIPT, "-i", "image_a.nii.gz", "-m", "masks_a.nii.gz", *RUN),
        *("--empty_slices", "nearest"),
        *(("--prompts", "paper,no_box") if is_nightly() else ()),
    ]
    tried = inject_faults(tmp_path, "out", fault, *command)
    assert tried >= (60 if is_nightly() else 10)


@pytest.mark.skipif(sys.platform != "linux", reason="limits of the address space are Linux's")
def test_with_little_memory_there_is_a_one_line_error_or_the_right_result(folder, expected):
    """The limits range from too little to load PyTorch to enough."""
    errors = []
    for megabytes in range(1000, 8000, 500 if is_nightly() else 3000):
        limited = f"ulimit -v {megabytes}000; exec {sys.executable} {ROOT / SCRIPT} " + " ".join(
            [*pair("a"), *RUN]
        )
        done = subprocess.run(["bash", "-c", limited], cwd=folder, capture_output=True, text=True)
        errors.append(done.stderr)
        assert "Traceback" not in done.stderr
        if done.returncode == 0:
            assert results(folder) == of("a", expected)
            shutil.rmtree(folder / "out")
    assert errors[0].startswith("error: too little memory")
    assert done.returncode == 0
