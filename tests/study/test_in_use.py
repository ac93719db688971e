"""A volume on which another process works is skipped, and that is no error."""

import numpy as np
import pytest
from conftest import chest, save_nifti

from sam_lungs.study import score
from sam_lungs.study.options import Options
from sam_lungs.study.process import IN_USE, process_case
from sam_lungs.study.run import STUDY, run_study
from sam_lungs.study.score_options import ScoreOptions
from sam_lungs.utils.files import FolderInUseError, locked_folder

FAST = ("--model", "box", "--device", "cpu")
SKIPPED = "in progress in another process, skipped\n"


@pytest.fixture
def volumes(tmp_path):
    """The arguments of two volumes, `a` and `b`."""
    image, masks = chest()
    for name in "ab":
        save_nifti(tmp_path / f"{name}.nii.gz", image)
        save_nifti(tmp_path / f"m_{name}.nii.gz", masks)
        save_nifti(tmp_path / f"p_{name}.nii.gz", (masks == 1).astype(np.uint8))
    return ["-i", "a.nii.gz", "b.nii.gz", "-m", "m_a.nii.gz", "m_b.nii.gz"]


def test_the_other_volumes_are_processed_and_the_report_is_left_to_the_last(volumes, run, tmp_path):
    out = tmp_path / "results"
    with locked_folder(out / "a"):
        done = run("process_image.py", *volumes, *FAST, "--report")
    assert done.stderr.count(f"a: {SKIPPED}") == 1
    last = done.stderr.splitlines()[-1]
    assert last.startswith("no report, because another process works on some volumes; run the same")
    assert done.returncode == 0
    assert not (out / "report.html").exists()
    assert (out / "b" / "run.json").exists()
    assert not (out / "a" / "run.json").exists()

    # The protocols that are free are processed.
    with locked_folder(out / "no_box" / "a"):
        done = run(
            "process_image.py",
            *volumes,
            *FAST[2:],
            "--model",
            "threshold",
            "--prompts",
            "paper,no_box",
        )
    assert (done.returncode, done.stderr.count(f"a (no_box): {SKIPPED}")) == (0, 1)
    assert sorted(path.parent.name for path in out.glob("paper/*/run.json")) == ["a", "b"]
    assert sorted(path.parent.name for path in out.glob("no_box/*/run.json")) == ["b"]


def test_explorations(volumes, run, tmp_path):
    jitter = ("explore_prompts.py", "jitter", *volumes, *FAST, "--repeats", 1, "--sigma_mm", 1)
    with locked_folder(tmp_path / "results" / "explore" / "jitter" / "a"):
        done = run(*jitter)
    assert done.returncode == 0, done.stderr
    assert f"a: {SKIPPED}" in done.stderr
    assert "no report, because" in done.stderr
    assert not list(tmp_path.rglob("explored.csv"))
    assert [path.parent.name for path in tmp_path.rglob("values.csv")] == ["b"]


def test_scores(volumes, run, tmp_path):
    predictions = ("-p", "p_a.nii.gz", "p_b.nii.gz", "--name", "theirs")
    with locked_folder(tmp_path / "results" / "theirs" / "a"):
        done = run("score_masks.py", *volumes, *predictions, "--report")
    assert done.returncode == 0, done.stderr
    assert f"a: {SKIPPED}" in done.stderr
    assert "no report, because" in done.stderr
    assert [path.parent.name for path in tmp_path.rglob("raw_data.csv")] == ["b"]


@pytest.mark.parametrize("finishes", [True, False])
def test_a_volume_that_another_process_finished_meanwhile_is_not_missing(
    tmp_path, volumes, finishes
):
    def by_another_process(case, segmenters, options, study):
        if finishes:
            assert process_case(case, segmenters, options) == 0
        return IN_USE

    options = Options([tmp_path / "a.nii.gz"], [tmp_path / "m_a.nii.gz"], model="box", device="cpu")
    work = STUDY._replace(process_case=by_another_process)
    assert run_study(options, work) == (0 if finishes else IN_USE)


def test_scores_on_which_another_process_worked_are_tried_again(tmp_path, volumes, monkeypatch):
    """Otherwise the process that ends last would write no report."""
    in_use = [FolderInUseError("results/theirs/m_a")]

    def open_recorder(*arguments):
        if in_use:
            raise in_use.pop()
        return open_now(*arguments)

    open_now = score.open_recorder
    monkeypatch.setattr(score, "open_recorder", open_recorder)
    masks, predictions = ([tmp_path / f"{role}_{name}.nii.gz" for name in "ab"] for role in "mp")
    options = ScoreOptions(
        masks_file_path=masks, predictions=predictions, name="theirs", output_folder=tmp_path
    )
    assert score.score_study(options) == 0
    found = sorted(path.parent.name for path in tmp_path.glob("theirs/*/raw_data.csv"))
    assert found == ["m_a", "m_b"]
