"""The dry run, with a tiny SAM in place of the real one."""

import numpy as np
import pytest
from conftest import chest, save_nifti, tiny_sam

from sam_lungs.segmenters import checkpoints
from sam_lungs.study import dry_run
from sam_lungs.study.dry_run import check_study
from sam_lungs.study.options import Options
from sam_lungs.study.run import run_study
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
    assert "2 slices of 1 volumes" in out
    # Only results of exactly this run are kept.
    assert check_study(options(pairs, weights, overwrite=True)) == 0
    assert "2 slices of 1 volumes" in capsys.readouterr().out
    assert check_study(options(pairs, weights, overwrite=True, window="none")) == 0
    assert "4 slices of 2 volumes" in capsys.readouterr().out
    # The results folder holds another run.
    with pytest.raises(InputError, match="1 of 2 volumes have faults"):
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


def test_missing_weights_are_named(pairs, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "CHECKPOINTS_FOLDER", tmp_path / "none")
    assert check_study(options(pairs, weights, checkpoint=None)) == 0
    out = capsys.readouterr().out
    assert f"{tmp_path / 'none' / 'sam_vit_l_0b3195.pth'} is missing" in out
    with pytest.raises(InputError, match=r"none\.pth"):
        check_study(options(pairs, weights, checkpoint=tmp_path / "none.pth"))


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
