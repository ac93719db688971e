"""The dry run, with a tiny SAM in place of the real one."""

import time

import numpy as np
import pytest
from conftest import chest, save_nifti, tiny_sam

from sam_lungs.segmenters import checkpoints
from sam_lungs.study import dry_run
from sam_lungs.study.dry_run import check_study
from sam_lungs.study.options import Options
from sam_lungs.study.run import run_study
from sam_lungs.study.setup import existing_cases
from sam_lungs.utils import waiting
from sam_lungs.utils.errors import InputError

IMAGE, MASKS = chest()


@pytest.fixture
def weights(monkeypatch, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "tiny.pth"
    path.write_bytes(b"weights")
    monkeypatch.setattr(checkpoints, "load_sam", lambda *_, **__: tiny_sam())
    return path


@pytest.fixture
def pairs(tmp_path):
    """Two images and their masks."""
    images, masks = [], []
    for name in ("image_a", "image_b"):
        images.append(save_nifti(tmp_path / f"{name}.nii.gz", IMAGE))
        masks.append(save_nifti(tmp_path / f"masks_of_{name}.nii.gz", MASKS))
    return images, masks


def options(pairs, weights, **given) -> Options:
    return Options(*pairs, **({"checkpoint": weights, "device": "cpu"} | given))


def test_the_table_describes_every_volume(pairs, weights, tmp_path, capsys):
    moved = np.diag([-0.7, -0.8, 5, 1])
    moved[0, 3] = 0.3  # mm
    save_nifti(pairs[1][1], MASKS, moved)
    before = sorted(tmp_path.rglob("*"))
    assert check_study(options(pairs, weights, debug=True)) == 0
    out, err = capsys.readouterr()
    header = " ".join(out.splitlines()[0].split())
    assert header == (
        "image masks size slices spacing mm values window labels lung to do faults warnings"
    )
    for line, name, warning in zip(
        out.splitlines()[1:3], ("image_a", "image_b"), ("-", "offset"), strict=True
    ):
        assert line.split() == [
            *(name, f"masks_of_{name}.nii.gz", "40x56", "3", "0.8,0.7,5", "-1000", "to", "40"),
            *("-650,1500", "1,", "2", "2", "2", "none", warning),
        ]
    assert "4 slices of 2 volumes to segment with vit_l: about 0:00:0" in out
    assert " s each, " in out
    assert out.endswith(" MB\n")
    assert err.startswith(f"warning: {pairs[1][1]}: ")
    assert err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_metrics_in_3d_are_rehearsed(pairs, weights, capsys):
    metrics = ("jaccard", "dice", "dice_3d", "hd95_3d")
    given = {"metrics": metrics, "empty_slices": "nearest"}
    assert check_study(options(pairs, weights, **given)) == 0
    assert "6 slices of 2 volumes to segment with vit_l: about 0:00:0" in capsys.readouterr().out


def test_every_fault_is_listed(pairs, weights, tmp_path, capsys):
    images, masks = pairs
    save_nifti(images[0], np.abs(IMAGE))
    masks[0] = save_nifti(tmp_path / "fractions.nii", MASKS * np.float32(0.9))
    (tmp_path / "results").touch()
    with pytest.raises(InputError, match=r"^2 of 2 volumes have faults; see above$"):
        check_study(options(pairs, weights))
    out = capsys.readouterr().out
    table, _, faults = out.partition("\nfaults:\n")
    first, second = table.splitlines()[1:]
    assert [name in first for name in ("window", "fractions", "folder")] == [True] * 3
    assert second.split()[-2:] == ["folder", "-"]
    assert "none" not in table
    lines = faults.splitlines()
    assert len(lines) == 4
    assert "masks must hold integral labels" in lines[0]
    assert "may or may not be Hounsfield units" in lines[1]
    assert "cannot be written to" in lines[2]
    assert "cannot be written to" in lines[3]
    assert "slices of" not in out


def test_missing_files_are_one_fault(pairs, weights, tmp_path, capsys):
    images = [*pairs[0], *(tmp_path / f"image_coronacases_{i:03}.npy" for i in range(1, 11))]
    masks = [*pairs[1], *(tmp_path / f"masks_coronacases_{i:03}.npy" for i in range(1, 11))]
    with pytest.raises(InputError, match=r"^10 of 12 volumes have faults; see above$"):
        check_study(options((images, masks), weights))
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:3]] == ["image_a", "image_b"]
    assert lines[3:6] == [
        "",
        "faults:",
        f"  {images[2]}: no such file; 20 files of 10 cases are missing; run"
        " scripts/download_dataset.sh, then scripts/nifti_to_numpy.sh",
    ]
    assert lines[7].startswith("4 slices of 2 volumes")
    with pytest.raises(InputError, match=r"^10 of 10 volumes have faults; see above$"):
        check_study(options((images[2:], masks[2:]), weights))
    assert len(capsys.readouterr().out.splitlines()) == 3


def test_at_most_three_labels_are_listed(pairs, weights, capsys):
    many = np.where(MASKS > 0, np.arange(MASKS.shape[0])[:, None, None] + 1, 0).astype(np.uint8)
    save_nifti(pairs[1][0], many)
    check_study(options(([pairs[0][0]], [pairs[1][0]]), weights, slice=1))
    labels = np.unique(many)[1:]
    assert f" {labels[0]}, {labels[1]}, ... ({len(labels)}) " in capsys.readouterr().out
    check_study(options((pairs[0][:1], pairs[1][:1]), weights, slice=1, labels=["left=15,16"]))
    assert " left " in capsys.readouterr().out


def test_finished_slices_are_not_counted(pairs, weights, capsys):
    images, masks = pairs
    run_study(options((images[:1], masks[:1]), weights))
    capsys.readouterr()
    assert check_study(options(pairs, weights)) == 0
    out, _ = capsys.readouterr()
    assert [line.split()[-3] for line in out.splitlines()[1:3]] == ["0", "2"]
    assert "2 slices of 1 volume to" in out
    # Only results of exactly this run are kept.
    assert check_study(options(pairs, weights, overwrite=True)) == 0
    assert "2 slices of 1 volume to" in capsys.readouterr().out
    assert check_study(options(pairs, weights, overwrite=True, window="none")) == 0
    assert "4 slices of 2 volumes" in capsys.readouterr().out
    # The results folder holds another run.
    with pytest.raises(InputError, match="1 of 2 volumes has faults"):
        check_study(options(pairs, weights, window="none"))
    assert "holds another run (--window auto there, none now)" in capsys.readouterr().out


def test_single_slices_and_several_protocols_are_counted(pairs, weights, capsys):
    assert check_study(options(pairs, weights, slice=1)) == 0
    assert "2 slices of 2 volumes" in capsys.readouterr().out
    with pytest.raises(InputError, match="2 of 2 volumes have faults"):
        check_study(options(pairs, weights, slice=3))
    assert "no slice 3" in capsys.readouterr().out
    assert (
        check_study(options(pairs, weights, prompts=("paper", "no_box"), empty_slices="nearest"))
        == 0
    )
    assert "6 slices of 2 volumes" in capsys.readouterr().out


@pytest.fixture
def no_weights(monkeypatch, tmp_path):
    """No weights of any model; those of segment-anything are replaced by a tiny one."""
    monkeypatch.setattr(checkpoints, "CHECKPOINTS_FOLDER", tmp_path / "none")
    monkeypatch.setattr(checkpoints, "untrained_sam", lambda _: tiny_sam())
    return {"checkpoint": None}


def test_missing_weights_are_named_and_the_time_is_measured(
    pairs, weights, tmp_path, no_weights, capsys
):
    several = {"model": "vit_l,vit_b", "embeddings_folder": tmp_path / "kept"}
    assert check_study(options(pairs, weights, **no_weights, **several)) == 0
    lines = capsys.readouterr().out.splitlines()[3:]
    for model, file in (("vit_l", "sam_vit_l_0b3195.pth"), ("vit_b", "sam_vit_b_01ec64.pth")):
        blank, cost, missing, *lines = lines
        assert blank == ""
        assert cost.startswith(f"4 slices of 2 volumes to segment with {model}: about 0:00:0")
        assert float(cost.split()[-2]) > 4 * 32 * 4 * 4 * 4 / 1e6  # with the embeddings
        path = tmp_path / "none" / file
        assert missing == f"{path} is missing, so this was measured with random weights"
    assert not (tmp_path / "kept").exists()
    with pytest.raises(InputError, match=r"none\.pth"):
        check_study(options(pairs, weights, checkpoint=tmp_path / "none.pth"))


def test_an_architecture_that_is_not_known_without_its_weights(pairs, weights, no_weights, capsys):
    assert check_study(options(pairs, weights, **no_weights, model="sam_hq_vit_b")) == 0
    *_, cost, command = capsys.readouterr().out.splitlines()
    assert cost.startswith("4 slices of 2 volumes to segment with sam_hq_vit_b; ")
    assert cost.endswith(" is missing, so the time is unknown: download it with")
    assert command == "scripts/download_model_checkpoints.sh sam_hq_vit_b"


@pytest.mark.parametrize("missing", [False, True])
def test_a_slow_slice_is_announced_and_measured_once(
    pairs, weights, no_weights, monkeypatch, capsys, missing
):
    calls = []

    def slow(*arguments):
        calls.append(process_case(*arguments))
        time.sleep(0.05)
        return calls[-1]

    process_case = dry_run.process_case
    monkeypatch.setattr(dry_run, "process_case", slow)
    given = no_weights if missing else {}
    check_study(options(pairs, weights, **given))
    assert len(calls) == 2
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(dry_run, "LONG_SECONDS", 0)
    monkeypatch.setattr(waiting, "SECONDS", 0.01)
    check_study(options(pairs, weights, **given))
    assert len(calls) == 3
    err = capsys.readouterr().err
    how = ", with random weights" * missing
    assert err.endswith(f"measuring one slice with vit_l{how} ...\n")


def test_the_estimate_of_disk_space_includes_embeddings(
    pairs, weights, tmp_path, monkeypatch, capsys
):
    kept = {"embeddings_folder": tmp_path / "embeddings"}
    assert check_study(options(pairs, weights, **kept)) == 0
    megabytes = float(capsys.readouterr().out.split()[-2])
    assert megabytes > 4 * 32 * 4 * 4 * 4 / 1e6
    assert not (tmp_path / "embeddings").exists()

    class Full:
        free = 1000

    monkeypatch.setattr(dry_run.shutil, "disk_usage", lambda path: Full)
    with pytest.raises(InputError, match="has 0 MB free"):
        check_study(options(pairs, weights, **kept))


def test_too_little_memory_is_an_error_of_the_dry_run(pairs, weights, monkeypatch, capsys):
    def short_of_memory(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr("sam_lungs.segmenters.sam.SamSegmenter.encode", short_of_memory)
    with pytest.raises(InputError, match="too little memory for one slice"):
        check_study(options(pairs, weights))
    assert len(capsys.readouterr().out.splitlines()) > 2


def test_missing_files_of_the_papers_datasets_name_their_download(tmp_path):
    for name, remedy in (
        ("image_coronacases_001", "scripts/download_dataset.sh, then scripts/nifti_to_numpy.sh"),
        ("MCUCXR_0001_0", "run scripts/download_dataset.sh montgomery"),
        ("image_of_mine", "check the path"),
    ):
        given = Options([tmp_path / f"{name}.png"], [tmp_path / "masks.png"])
        _, (fault,) = existing_cases(given)
        assert remedy in fault
