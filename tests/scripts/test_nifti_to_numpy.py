import json
import os
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT, assert_refused, chest, save_nifti

from sam_lungs.data.arrays import is_converted, write_numpy
from sam_lungs.data.nifti import read_nifti
from sam_lungs.data.readers import read_volume

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


def test_bad_input_is_one_line_and_keeps_the_old_output(run, nifti, tmp_path):
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


def test_impossible_outputs_are_refused(run, nifti, tmp_path):
    (tmp_path / "file").touch()
    for output in (tmp_path / "file" / "image.npy", tmp_path / "image.nii", tmp_path / "image"):
        assert_refused(run(SCRIPT, "-i", nifti, "-o", output), str(output))
        assert_refused(run(SCRIPT, "-i", nifti, "-o", output, "-n"))


def test_a_degenerate_affine_is_refused_for_radiological_only(run, tmp_path):
    nifti = save_nifti(tmp_path / "image.nii", IMAGE)
    flat = bytearray(nifti.read_bytes())
    flat[280:328] = bytes(48)  # the rows of the header's affine
    nifti.write_bytes(flat)
    output = tmp_path / "image.npy"
    assert_refused(run(SCRIPT, "-i", nifti, "-o", output, "--orientation", "radiological"), "paper")
    assert not output.exists()
    assert run(SCRIPT, "-i", nifti, "-o", output).returncode == 0


def times(folder):
    return {path: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
@pytest.mark.parametrize("orientation", ["paper", "radiological"])
def test_a_converted_volume_is_skipped(run, nifti, tmp_path, suffix, orientation):
    output = tmp_path / "new" / f"image{suffix}"
    arguments = (SCRIPT, "-i", nifti, "-o", output, "--orientation", orientation)
    run(*arguments)
    before = times(output.parent)
    os.utime(nifti)
    for option in ((), ("-n",)):
        done = run(*arguments, *option)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"already converted: {output}\n"
    assert times(output.parent) == before


def damage_array(nifti, output):
    content = bytearray(output.read_bytes())
    content[-1] ^= 1
    output.write_bytes(content)


def damage_json(nifti, output):
    record = output.with_name(f"{output.name}.json")
    record.write_text(record.read_text().replace("paper", "papers"))


def cut_array(nifti, output):
    os.truncate(output, 200)


def remove_array(nifti, output):
    output.unlink()


def remove_json(nifti, output):
    output.with_name(f"{output.name}.json").unlink()


def change_source(nifti, output):
    save_nifti(nifti, IMAGE + 1)
    os.utime(nifti, (1, 1))


def turn(nifti, output):
    write_numpy(read_nifti(nifti, "radiological"), output)


@pytest.mark.parametrize(
    "change", [damage_array, damage_json, cut_array, remove_array, remove_json, change_source, turn]
)
def test_a_damaged_or_outdated_array_is_converted_again(run, nifti, tmp_path, change):
    output = tmp_path / "image.npy"
    write_numpy(read_nifti(nifti), output)
    change(nifti, output)
    done = run(SCRIPT, "-i", nifti, "-o", output, "-n")
    assert done.stdout.startswith("would write")
    assert run(SCRIPT, "-i", nifti, "-o", output).stdout.startswith("wrote")
    volume = read_volume(output)
    np.testing.assert_array_equal(volume.array, read_nifti(nifti).array)
    assert json.loads((tmp_path / "image.npy.json").read_text())["orientation_option"] == "paper"
    assert is_converted(nifti, output, "paper")


def test_several_volumes_are_converted_in_order_and_a_broken_one_is_reported(run, nifti, tmp_path):
    broken, other = tmp_path / "broken.nii", save_nifti(tmp_path / "other.nii", IMAGE + 1)
    broken.touch()
    outputs = [tmp_path / name for name in ("c.npy", "b.npy", "a.npz")]
    arguments = (SCRIPT, "-i", nifti, broken, other, "-o", *outputs)
    for option in ("--dry_run", "--orientation=paper"):
        done = run(*arguments, option)
        assert_refused(done, str(broken))
        outputs_named = [line.partition(":")[0].split()[-1] for line in done.stdout.splitlines()]
        assert outputs_named == [str(outputs[0]), str(outputs[2])]
        assert outputs[0].exists() == outputs[2].exists() == (option != "--dry_run")
    np.testing.assert_array_equal(read_volume(outputs[0]).array, IMAGE)
    np.testing.assert_array_equal(read_volume(outputs[2]).array, IMAGE + 1)
    assert not outputs[1].exists()


def test_different_numbers_of_volumes_and_arrays_are_refused(run, nifti, tmp_path):
    output = tmp_path / "image.npy"
    assert_refused(run(SCRIPT, "-i", nifti, nifti, "-o", output), "2 volumes but 1")
    assert_refused(run(SCRIPT, "-i", nifti, nifti, "-o", output, output), "two volumes")
    assert_refused(run(SCRIPT, "-i", nifti, "-o", tmp_path / "...npy"), "rename")
    assert list(tmp_path.iterdir()) == [nifti]


def test_the_script_does_not_import_torch():
    code = "import sys, nifti_to_numpy; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
