import json
import os
import subprocess
import sys

import cv2
import numpy as np
import pytest
import SimpleITK
from conftest import ROOT, assert_refused, chest, save_nifti
from scanner import VOXELS, change, save, scan

from sam_lungs.data.arrays import is_converted, write_numpy
from sam_lungs.data.nifti import read_nifti
from sam_lungs.data.readers import identify, read_volume

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
    assert is_converted(identify(nifti)["sha256"], output, "paper")


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
    assert_refused(run(SCRIPT, "-i", nifti, nifti, "-o", output), "2 volumes but 1 array;")
    assert_refused(run(SCRIPT, "-i", nifti, nifti, "-o", output, output), "two volumes")
    assert_refused(run(SCRIPT, "-i", nifti, "-o", tmp_path / "...npy"), "rename")
    assert list(tmp_path.iterdir()) == [nifti]


@pytest.fixture
def scans(tmp_path):
    """A folder with two DICOM series, 1.2.3 and 1.2.4."""
    save(tmp_path / "scan" / "a", scan())
    save(tmp_path / "scan" / "b", scan(VOXELS + 1, series="1.2.4"))
    return tmp_path / "scan"


def test_a_dicom_series_is_converted_and_skipped_while_nothing_changes(run, scans, tmp_path):
    output = tmp_path / "image.npy"
    arguments = (SCRIPT, "-i", scans, "-o", output)
    assert_refused(run(*arguments), "--series", "1.2.3 (5 images)", "1.2.4 (5 images)")
    assert_refused(run(*arguments, "--series", "1.2"), "no series 1.2")
    for uid, array in (("1.2.4", VOXELS + 1), ("1.2.3", VOXELS)):
        again = (*arguments, "--series", uid)
        assert run(*again).stdout == f"wrote {output}: (3, 4, 5) int16\n"
        volume = read_volume(output)
        np.testing.assert_array_equal(volume.array, array)
        assert volume.geometry.orientation == "PLS"
        record = json.loads((tmp_path / "image.npy.json").read_text())
        assert record["reading"] == {"series": uid}
        assert run(*again).stdout == f"already converted: {output}\n"
    change(scans / "a", lambda dataset: setattr(dataset, "RescaleIntercept", 1))
    assert run(*again, "-n").stdout.startswith("would write")


def test_a_picture_is_converted_with_the_given_spacing(run, tmp_path):
    path, output = tmp_path / "x_ray.png", tmp_path / "image.npy"
    cv2.imwrite(str(path), np.arange(12, dtype=np.uint16).reshape(3, 4) * 1000)
    arguments = (SCRIPT, "-i", path, "-o", output)
    assert run(*arguments).stdout == f"wrote {output}: (3, 4, 1) uint16\n"
    assert read_volume(output).geometry is None
    assert "reading" not in json.loads((tmp_path / "image.npy.json").read_text())
    for spacing, expected in (("0.2,0.1", (0.2, 0.1, 1)), ("0.3,0.1,2", (0.3, 0.1, 2))):
        done = run(*arguments, "--spacing_mm", spacing)
        assert done.stdout == f"wrote {output}: (3, 4, 1) uint16\n"
        assert read_volume(output).geometry.spacing_mm == expected
        assert run(*arguments, "--spacing_mm", spacing).stdout.startswith("already converted")
    assert read_volume(output).is_picture


@pytest.mark.parametrize("spacing", ["1", "0,1", "-1,1", "1,2,3,4", "a,b", "nan,1", "inf,1"])
def test_an_impossible_spacing_is_refused(run, nifti, tmp_path, spacing):
    arguments = (SCRIPT, "-i", nifti, "-o", tmp_path / "image.npy", f"--spacing_mm={spacing}")
    assert_refused(run(*arguments), "--spacing_mm", spacing, "0.7,0.7,5")


def test_every_format_is_converted(run, nifti, tmp_path):
    volume = SimpleITK.ReadImage(nifti)
    for name in ("a.nrrd", "b.mha"):
        SimpleITK.WriteImage(volume, tmp_path / name)
        assert run(SCRIPT, "-i", tmp_path / name, "-o", tmp_path / f"{name}.npy").returncode == 0
        array = read_volume(tmp_path / f"{name}.npy")
        np.testing.assert_array_equal(array.array, IMAGE)
        assert array.geometry.orientation == "PLS"


def test_the_script_does_not_import_torch():
    code = "import sys, nifti_to_numpy; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
