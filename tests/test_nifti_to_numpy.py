import json

import numpy as np
import pytest
from conftest import assert_refused, chest, save_nifti

SCRIPT = "nifti_to_numpy.py"
IMAGE, _ = chest()


@pytest.fixture
def nifti(tmp_path):
    return save_nifti(tmp_path / "image.nii.gz", IMAGE)


@pytest.mark.parametrize("names", [("--input_file_path", "--output_file_path"), ("-i", "-o")])
def test_a_volume_is_converted_with_its_geometry(run, nifti, tmp_path, names):
    output = tmp_path / "new" / "image.npy"
    done = run(SCRIPT, names[0], nifti, names[1], output)
    assert done.returncode == 0
    assert done.stderr == ""
    assert done.stdout == f"wrote {output}: (40, 56, 3) int16\n"
    np.testing.assert_array_equal(np.load(output), IMAGE)
    assert json.loads((tmp_path / "new" / "image.npy.json").read_text())["orientation"] == "PLS"


def test_radiological_orientation(run, tmp_path):
    upside_down = save_nifti(tmp_path / "image.nii", IMAGE[::-1], np.diag([-0.7, 0.8, 5, 1]))
    output = tmp_path / "image.npz"
    assert run(SCRIPT, "-i", upside_down, "-o", output, "--orientation", "radiological").stdout
    np.testing.assert_array_equal(np.load(output)["volume"], IMAGE)


@pytest.mark.parametrize("option", ["-n", "--dry_run"])
def test_a_dry_run_writes_nothing(run, nifti, tmp_path, option):
    done = run(SCRIPT, "-i", nifti, "-o", tmp_path / "image.npy", option)
    assert done.stdout == f"would write {tmp_path / 'image.npy'}: (40, 56, 3) int16\n"
    assert list(tmp_path.iterdir()) == [nifti]


def test_bad_input_is_one_line_and_leaves_the_old_output_alone(run, nifti, tmp_path):
    output = tmp_path / "image.npy"
    output.write_bytes(b"before")
    (tmp_path / "text.nii").write_text("not a volume")
    (tmp_path / "cut.nii.gz").write_bytes(nifti.read_bytes()[:-20])
    (tmp_path / "array.npy").write_bytes(b"\x93NUMPY")
    names = ("text.nii", "cut.nii.gz", "array.npy", "missing.nii.gz")
    for name in names:
        assert_refused(run(SCRIPT, "-i", tmp_path / name, "-o", output), name)
    assert output.read_bytes() == b"before"
    assert len(list(tmp_path.iterdir())) == 5


def test_outputs_that_cannot_be_are_refused(run, nifti, tmp_path):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "image.npy", tmp_path / "image.nii", tmp_path / "image"):
        assert_refused(run(SCRIPT, "-i", nifti, "-o", output), str(output))
        assert_refused(run(SCRIPT, "-i", nifti, "-o", output, "-n"))


def test_an_affine_that_turns_nothing_is_refused_for_radiological_only(run, tmp_path):
    nifti = save_nifti(tmp_path / "image.nii", IMAGE)
    flat = bytearray(nifti.read_bytes())
    flat[280:328] = bytes(48)  # the rows of the header's affine
    nifti.write_bytes(flat)
    output = tmp_path / "image.npy"
    assert_refused(run(SCRIPT, "-i", nifti, "-o", output, "--orientation", "radiological"), "paper")
    assert not output.exists()
    assert run(SCRIPT, "-i", nifti, "-o", output).returncode == 0
