"""Phantoms: reproducible voxels and files, plausible anatomy, resumable generation."""

import gzip
import hashlib
import json
import random
import re
import shutil
import signal
import time
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import assert_refused
from faults import FAULTS, Child, damaged, fault_step, finish, inject_faults, wait_for
from faults import contents as all_contents

from sam_lungs.synthetic import phantom
from sam_lungs.synthetic.folder import RECORD_NAME
from sam_lungs.synthetic.patient import LEFT_LUNG, RIGHT_LUNG
from sam_lungs.synthetic.phantom import phantom_volume, sample_slice, write_phantoms
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import LOCK_NAME, locked_folder

VARIANTS = ("hounsfield", "windowed")
# The command with volumes of few pixels.
SMALL_COMMAND = """
from functools import partial
from sam_lungs.synthetic import phantom
from sam_lungs.utils import cli

phantom.phantom_volume = partial(phantom.phantom_volume, shape=(48, 48))
cli.run_script(phantom.main)
"""
COMMAND = "sam_lungs.synthetic.phantom"


@pytest.fixture(scope="module")
def volume():
    return phantom_volume(seed=0, case=1, slices=24, variant="hounsfield", shape=(192, 192))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write_phantoms(folder, cases=2, slices=4, seed=3)
    return folder


@pytest.fixture
def small_volumes(monkeypatch):
    """Make `write_phantoms` fast: volumes of few pixels, and no hash of the code."""
    monkeypatch.setattr(phantom, "phantom_volume", partial(phantom_volume, shape=(48, 48)))
    monkeypatch.setattr(phantom, "code_sha256", lambda patterns: 64 * "c")


@pytest.fixture
def small_command(tmp_path):
    path = tmp_path / "small.py"
    path.write_text(SMALL_COMMAND)
    return path


def contents(folder):
    """The bytes of all files of a folder, by name, except its lock."""
    return {name: data for name, data in all_contents(folder).items() if name != LOCK_NAME}


def times(folder):
    """The time of each volume's last change."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*.gz")}


def digest(*arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


# Pinned, so that no voxel of the demo and of the training data changes unintentionally.
@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("hounsfield", "52f0271d3126007618c2d4534b53d801605ee0a6d4cbc85a0b4edc4484b16cbe"),
        ("windowed", "debdebe18fadf1c905587904329d8e41b43c7136588486c520fa4e2caa4d56ea"),
    ],
)
def test_voxels_of_a_tiny_volume_do_not_change(variant, expected):
    image, masks, _ = phantom_volume(seed=0, case=1, slices=4, variant=variant, shape=(64, 80))
    assert digest(image, masks) == expected


def test_each_seed_and_case_gives_another_patient():
    digests = {
        digest(phantom_volume(seed, case, 2, "hounsfield", (48, 48))[0])
        for seed, case in ((0, 1), (1, 1), (0, 2))
    }
    assert len(digests) == 3


def test_one_seed_gives_the_same_bytes(folder, tmp_path):
    write_phantoms(tmp_path, cases=2, slices=4, seed=3)
    written = contents(folder)
    assert sorted(written) == [
        *(f"{kind}/phantom_00{case}.nii.gz" for kind in ("CT", "Lung_Mask") for case in (1, 2)),
        RECORD_NAME,
    ]
    assert contents(tmp_path) == written


def test_gzip_header_has_no_time_and_no_name(folder):
    header = (folder / "CT" / "phantom_001.nii.gz").read_bytes()[:10]
    assert header[3] == 0  # flags: no name
    assert header[4:8] == bytes(4)  # no time


def test_files_contain_the_volume_with_its_first_two_axes_swapped(folder):
    image, masks, affine = phantom_volume(seed=3, case=1, slices=4, variant="hounsfield")
    for kind, array in (("CT", image), ("Lung_Mask", masks)):
        nifti = nib.load(folder / kind / "phantom_001.nii.gz")
        stored = np.asanyarray(nifti.dataobj)
        assert stored.dtype == array.dtype
        np.testing.assert_array_equal(stored.swapaxes(0, 1), array)
        np.testing.assert_allclose(nifti.affine, affine, rtol=1e-6)


def test_first_case_is_hounsfield_and_the_second_windowed(folder):
    first, second = (nib.load(folder / "CT" / f"phantom_00{case}.nii.gz") for case in (1, 2))
    assert first.shape == (512, 512, 4)
    assert first.get_data_dtype() == np.int16
    assert second.get_data_dtype() == np.uint8
    assert second.shape[0] != second.shape[1]
    grey = np.asanyarray(second.dataobj)
    assert grey.min() < 60
    assert grey.max() == 255


def test_affine_is_radiological_and_anisotropic(volume):
    image, _, affine = volume
    assert nib.aff2axcodes(affine) == ("L", "P", "S")
    column_mm, row_mm, slice_mm = nib.affines.voxel_sizes(affine)
    assert 0.9 < column_mm * image.shape[1] / 400 < 1.6  # a field of view of 360 .. 640 mm
    assert column_mm == row_mm
    assert slice_mm > 1.5 * row_mm


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("case", range(1, 7))
def test_labels_are_on_the_side_given_by_the_affine(variant, case):
    image, masks, affine = phantom_volume(1, case, 16, variant, (96, 112))
    assert masks.shape == image.shape
    assert set(np.unique(masks)) == {0, RIGHT_LUNG, LEFT_LUNG}

    def right_mm(label):  # x of a NIfTI file's "RAS" millimetres
        rows, columns, slices = np.nonzero(masks == label)
        return (affine @ np.stack([columns, rows, slices, np.ones_like(rows)]))[0].mean()

    assert right_mm(RIGHT_LUNG) > right_mm(LEFT_LUNG) + 60


def test_a_volume_starts_and_ends_without_lung_and_has_tips_and_two_lungs(volume):
    _, masks, _ = volume
    areas = (masks > 0).sum(axis=(0, 1))
    assert areas[0] == areas[-1] == 0
    two_lungs = (masks == RIGHT_LUNG).any(axis=(0, 1)) & (masks == LEFT_LUNG).any(axis=(0, 1))
    assert two_lungs.sum() >= 12
    assert 0 < areas[areas > 0].min() < areas.max() / 8  # a tip


def test_lungs_are_darker_than_their_surroundings(volume):
    image, masks, _ = volume
    lungs = masks > 0
    near = np.zeros_like(lungs)
    for axis, step in ((0, 6), (0, -6), (1, 6), (1, -6)):
        near |= np.roll(lungs, step, axis=axis)
    assert np.median(image[lungs]) < -600
    assert np.median(image[near & ~lungs]) > -200


def test_trachea_is_air_inside_the_body_and_outside_the_masks(volume):
    image, masks, affine = volume
    lungs = np.flatnonzero((masks > 0).any(axis=(0, 1)))
    k = int(lungs[0] + 0.75 * (lungs[-1] - lungs[0]))
    rows = np.nonzero(masks[:, :, k])[0]
    right, left = (
        int(np.nonzero(masks[:, :, k] == label)[1].mean()) for label in (RIGHT_LUNG, LEFT_LUNG)
    )
    window = (slice(rows.min(), rows.max()), slice(right, left), k)
    airway = (image[window] < -850) & (masks[window] == 0)
    area_mm2 = airway.sum() * abs(affine[0, 0] * affine[1, 1])
    assert 60 < area_mm2 < 600


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("shape", [(128, 128), (100, 157), (157, 100)])
def test_samples_have_the_requested_shape_and_type_and_contain_lung(variant, shape):
    dtype = {"hounsfield": np.int16, "windowed": np.uint8}[variant]
    for seed in range(12):
        image, masks = sample_slice(np.random.default_rng(seed), *shape, variant)
        assert image.shape == masks.shape == shape
        assert (image.dtype, masks.dtype) == (dtype, np.uint8)
        assert set(np.unique(masks)) <= {0, RIGHT_LUNG, LEFT_LUNG}
        assert masks.any()


def test_samples_are_reproducible_and_of_both_variants():
    draws = [sample_slice(np.random.default_rng(seed), 64, 64) for seed in range(12)]
    again = [sample_slice(np.random.default_rng(seed), 64, 64) for seed in range(12)]
    assert [digest(*draw) for draw in draws] == [digest(*draw) for draw in again]
    assert {image.dtype for image, _ in draws} == {np.dtype(np.int16), np.dtype(np.uint8)}


def test_samples_have_all_eight_orientations():
    orientations = set()
    for seed in range(80):
        image, masks = sample_slice(np.random.default_rng(seed), 48, 48, "hounsfield")
        bones = image > 300  # mostly spine
        if all(where.any() for where in (masks == RIGHT_LUNG, masks == LEFT_LUNG, bones)):
            right, left = (np.argwhere(masks == label).mean(0) for label in (RIGHT_LUNG, LEFT_LUNG))
            across = int(np.argmax(np.abs(left - right)))
            upright = np.argwhere(bones).mean(0)[1 - across] > (right + left)[1 - across] / 2
            orientations.add((across, bool(left[across] > right[across]), bool(upright)))
    assert len(orientations) == 8


def test_command_writes_the_requested_volumes(run, tmp_path):
    folder = tmp_path / "new"
    result = run(COMMAND, "--output_folder", folder, "--cases", 1, "--slices", 2, "--seed", 5)
    assert result.returncode == 0, result.stderr
    with gzip.open(folder / "Lung_Mask" / "phantom_001.nii.gz") as stream:
        assert len(stream.read()) == 352 + 512 * 512 * 2
    names = [name.rpartition("/")[2] for name in contents(folder)]
    assert sorted(names) == ["phantom_001.nii.gz"] * 2 + [RECORD_NAME]  # and no temporary file


@pytest.mark.parametrize("option", ["--cases", "--slices"])
def test_command_refuses_fewer_than_one(run, tmp_path, option):
    result = run(COMMAND, "--output_folder", tmp_path, option, 0)
    assert_refused(result, "--cases and --slices must be at least 1, --seed at least 0")
    assert not list(tmp_path.iterdir())


def test_command_refuses_a_folder_that_cannot_be_written(run, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    result = run(COMMAND, "--output_folder", blocked, "--cases", 1, "--slices", 1)
    assert_refused(result, f"{blocked}: cannot be written")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_at_any_write_is_resumed_to_the_same_bytes(tmp_path, small_command, fault):
    arguments = ("-o", "out", "--cases", 2, "--slices", 1, "--seed", 3)
    tried = inject_faults(tmp_path, "out", fault, small_command, *arguments)
    assert tried >= 20 // fault_step()


def test_repeated_kills_end_with_the_same_bytes(tmp_path, small_command):
    rng = random.Random(0)
    arguments = (small_command, "-o", "out", "--cases", 8, "--slices", 4, "--seed", 3)
    finish(tmp_path, *arguments)
    undisturbed = contents(tmp_path / "out")
    shutil.rmtree(tmp_path / "out")
    for _ in range(12):
        child = Child(tmp_path, *arguments)
        time.sleep(rng.uniform(0, 0.3))
        child.send(signal.SIGKILL)
        assert child.wait() in (0, -signal.SIGKILL)
    finish(tmp_path, *arguments)
    assert contents(tmp_path / "out") == undisturbed


def test_finished_phantoms_are_kept_and_more_cases_are_added(folder, tmp_path):
    write_phantoms(tmp_path, cases=1, slices=4, seed=3)
    before = times(tmp_path)
    write_phantoms(tmp_path, cases=1, slices=4, seed=3)
    assert times(tmp_path) == before
    write_phantoms(tmp_path, cases=2, slices=4, seed=3)
    assert times(tmp_path).items() > before.items()
    assert contents(tmp_path) == contents(folder)


def test_only_damaged_and_missing_volumes_are_made_again(tmp_path, small_volumes):
    write_phantoms(tmp_path, cases=2, slices=1, seed=3)
    whole = contents(tmp_path)
    for name in ("CT/phantom_001.nii.gz", "Lung_Mask/phantom_002.nii.gz"):
        before = times(tmp_path)
        for content in damaged(whole[name], lengths=10, flips=15):
            (tmp_path / name).write_bytes(content)
            write_phantoms(tmp_path, cases=2, slices=1, seed=3)
            assert contents(tmp_path) == whole
        changed = {path.name for path, when in times(tmp_path).items() if before[path] != when}
        assert changed == {Path(name).name}
    (tmp_path / "CT" / "phantom_001.nii.gz").unlink()
    write_phantoms(tmp_path, cases=2, slices=1, seed=3)
    assert contents(tmp_path) == whole


def test_a_damaged_record_is_refused_or_changes_no_volume(tmp_path, small_volumes):
    write_phantoms(tmp_path, cases=1, slices=1, seed=3)
    whole, refused = contents(tmp_path), 0
    for content in damaged(whole[RECORD_NAME], lengths=60, flips=120):
        (tmp_path / RECORD_NAME).write_bytes(content)
        message = ""
        try:
            write_phantoms(tmp_path, cases=1, slices=1, seed=3)
        except InputError as error:
            message = str(error)
            refused += 1
        assert re.fullmatch(r"|.*(other phantoms|damaged).*--overwrite.*", message)
        after = contents(tmp_path)
        assert after.keys() == whole.keys()
        assert all(after[name] == whole[name] for name in whole if name != RECORD_NAME)
    assert refused > 80


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"seed": 4}, "seed 3 there, 4 now"),
        ({"slices": 2}, "slices 1 there, 2 now"),
        ({"variant": "windowed"}, "variant alternate there, windowed now"),
    ],
)
def test_phantoms_of_other_settings_need_overwrite(tmp_path, small_volumes, changed, difference):
    asked = {"cases": 1, "slices": 1, "seed": 3} | changed
    write_phantoms(tmp_path / "new", **asked)
    write_phantoms(tmp_path / "old", cases=2, slices=1, seed=3)
    before = contents(tmp_path / "old")
    with pytest.raises(InputError, match=difference):
        write_phantoms(tmp_path / "old", **asked)
    assert contents(tmp_path / "old") == before
    write_phantoms(tmp_path / "old", **asked, overwrite=True)
    assert contents(tmp_path / "old") == contents(tmp_path / "new")


def test_phantoms_of_other_code_or_without_a_record_are_refused(tmp_path):
    write_phantoms(tmp_path, cases=1, slices=1, seed=3)
    path = tmp_path / RECORD_NAME
    record = json.loads(path.read_text())
    record["made_of"]["code_sha256"] = 64 * "0"
    path.write_text(json.dumps(record))
    with pytest.raises(InputError, match=r"code_sha256 000000000000 there, .* --overwrite"):
        write_phantoms(tmp_path, cases=1, slices=1, seed=3)
    path.unlink()
    with pytest.raises(InputError, match=f"has phantoms but no {RECORD_NAME} .*--overwrite"):
        write_phantoms(tmp_path, cases=1, slices=1, seed=3)


def test_a_second_process_in_the_folder_is_refused(run, tmp_path):
    with locked_folder(tmp_path):
        result = run(COMMAND, "--output_folder", tmp_path, "--cases", 1, "--slices", 1)
    assert_refused(result, f"{tmp_path}: another process is working in it")
    assert [path.name for path in tmp_path.iterdir()] == [LOCK_NAME]
    write_phantoms(tmp_path, cases=1, slices=1, seed=0)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_finished_volumes_and_the_message_says_how_to_resume(
    tmp_path, number, status
):
    arguments = ("-o", "out", "--cases", 50, "--slices", 2, "--seed", 3)
    child = Child(tmp_path, "sam_lungs/synthetic/phantom.py", *arguments)
    folder = tmp_path / "out"
    wait_for(folder / "CT" / "phantom_002.nii.gz", child)  # so the record lists the first pair
    child.send(number)
    assert child.wait() == status
    assert "to resume, run the same command again" in child.output_lines()[-1]
    assert "Traceback" not in str(child.output_lines())
    before = (folder / "CT" / "phantom_001.nii.gz").stat().st_mtime_ns
    write_phantoms(folder, cases=2, slices=2, seed=3)
    assert (folder / "CT" / "phantom_001.nii.gz").stat().st_mtime_ns == before
    assert not list(folder.rglob(".partial*"))


def test_a_full_disk_is_one_line_and_the_run_resumes_with_more_space(small_disk, run, tmp_path):
    arguments = ("--cases", 2, "--slices", 2, "--seed", 3)
    assert run(COMMAND, "-o", tmp_path / "roomy", *arguments).returncode == 0
    whole = contents(tmp_path / "roomy")
    folder = small_disk(len(whole["CT/phantom_001.nii.gz"]) // 1024 + 60)
    done = run(COMMAND, "-o", folder, *arguments)
    assert done.returncode == 1
    assert "No space left on device" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    left = contents(folder)
    assert "CT/phantom_001.nii.gz" in left
    assert all(left[name] == whole[name] for name in left if name != RECORD_NAME)
    small_disk(4096)
    assert run(COMMAND, "-o", folder, *arguments).returncode == 0
    assert contents(folder) == whole
