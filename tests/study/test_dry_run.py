"""The look at a study's inputs, with a tiny SAM in place of the real one."""

import numpy as np
import pytest
from conftest import chest, save_nifti, tiny_sam

from sam_lungs.prompts.rules import PROTOCOLS
from sam_lungs.segmenters import checkpoints
from sam_lungs.study import dry_run as inspection
from sam_lungs.study.dry_run import inspect_study
from sam_lungs.study.options import Options
from sam_lungs.study.run import Study
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


def study(weights, **options) -> Study:
    return Study(Options(**{"checkpoint": weights, "device": "cpu"} | options))


def test_the_table_tells_what_is_known_of_every_volume(pairs, weights, tmp_path, capsys):
    save_nifti(pairs[1][1], MASKS, np.diag([1.0, 1, 1, 1]))
    before = sorted(tmp_path.rglob("*"))
    assert inspect_study(study(weights, debug=True), *pairs) == 0
    said, err = capsys.readouterr()
    header = " ".join(said.splitlines()[0].split())
    assert header == "image size slices voxels window labels affines with lung to do faults"
    for line, name, affines in zip(
        said.splitlines()[1:3], ("image_a", "image_b"), ("agree", "differ"), strict=True
    ):
        assert line.split() == [
            *(name, "40", "x", "56", "3", "int16", "-1000", "to", "40", "-650,1500", "HU"),
            *("1,", "2", affines, "2", "2", "none"),
        ]
    assert "4 slices of 2 volumes to segment with vit_l: about 0:00:0" in said
    assert " s each, " in said
    assert said.endswith(" MB\n")
    assert err == ""
    assert sorted(tmp_path.rglob("*")) == before


def test_every_fault_is_told_at_once(pairs, weights, tmp_path, capsys):
    images, masks = pairs
    save_nifti(images[0], np.abs(IMAGE))
    masks[0] = save_nifti(tmp_path / "fractions.nii", MASKS * np.float32(0.9))
    missing = tmp_path / "image_missing.nii.gz"
    (tmp_path / "results").touch()
    assert inspect_study(study(weights), [*images, missing], [*masks, masks[1]]) == 1
    said, err = capsys.readouterr()
    first, second, third = said.splitlines()[1:4]
    assert "could be Hounsfield units or not" in first
    assert "masks must hold integral labels" in first
    assert "cannot be written to" in first
    assert "image_missing.nii.gz: no such file" in third
    assert second.count("cannot be written to") == 1
    assert err == "error: 3 of 3 volumes have faults; see the table\n"
    assert "slices of" not in said


def test_what_is_done_is_not_to_do(pairs, weights, capsys):
    images, masks = pairs
    study(weights).run(images[:1], masks[:1])
    capsys.readouterr()
    assert inspect_study(study(weights), *pairs) == 0
    said, _ = capsys.readouterr()
    assert [line.split()[-2] for line in said.splitlines()[1:3]] == ["0", "2"]
    assert "2 slices of 1 volumes" in said
    assert inspect_study(study(weights, overwrite=True), *pairs) == 0
    assert "4 slices of 2 volumes" in capsys.readouterr().out
    # Another run's results are in the way.
    assert inspect_study(study(weights, window="none"), *pairs) == 1
    assert "holds another run (--window auto there, none now)" in capsys.readouterr().out


def test_one_slice_and_a_sweep(pairs, weights, capsys):
    assert inspect_study(study(weights, slice_index=1), *pairs) == 0
    assert "2 slices of 2 volumes" in capsys.readouterr().out
    assert inspect_study(study(weights, slice_index=3), *pairs) == 1
    assert "no slice 3" in capsys.readouterr().out
    sweep = {name: PROTOCOLS[name] for name in ("paper", "no_box")}
    assert inspect_study(study(weights, protocols=sweep, empty_slices="nearest"), *pairs) == 0
    assert "6 slices of 2 volumes" in capsys.readouterr().out


def test_weights_that_are_not_there_yet_are_told(pairs, weights, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "CHECKPOINTS_FOLDER", tmp_path / "none")
    assert inspect_study(study(weights, checkpoint=None), *pairs) == 0
    said = capsys.readouterr().out
    assert f"{tmp_path / 'none' / 'sam_vit_l_0b3195.pth'} is not there" in said
    with pytest.raises(InputError, match=r"none\.pth"):
        inspect_study(study(weights, checkpoint=tmp_path / "none.pth"), *pairs)


def test_embeddings_make_the_room_that_is_needed(pairs, weights, tmp_path, monkeypatch, capsys):
    kept = {"embeddings_folder": tmp_path / "embeddings"}
    assert inspect_study(study(weights, **kept), *pairs) == 0
    megabytes = float(capsys.readouterr().out.split()[-2])
    assert megabytes > 4 * 32 * 4 * 4 * 4 / 1e6
    assert not (tmp_path / "embeddings").exists()

    class Full:
        free = 1000

    monkeypatch.setattr(inspection.shutil, "disk_usage", lambda path: Full)
    assert inspect_study(study(weights, **kept), *pairs) == 1
    assert "has room for 0 MB" in capsys.readouterr().err


def test_too_little_memory_is_found_before_hours_are_spent(pairs, weights, monkeypatch, capsys):
    def short_of_memory(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9")

    monkeypatch.setattr("sam_lungs.segmenters.sam.SamSegmenter.encode", short_of_memory)
    assert inspect_study(study(weights), *pairs) == 1
    said, err = capsys.readouterr()
    assert len(said.splitlines()) > 2
    assert "too little memory for one slice" in err
