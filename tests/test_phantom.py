"""The phantom is what it says: the same for a seed, in the right places, in the right numbers."""

import gzip
import hashlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import assert_refused

from sam_lungs.phantom import phantom_volume, sample_slice, write_phantoms
from sam_lungs.phantom_patient import LEFT_LUNG, RIGHT_LUNG

VARIANTS = ("hounsfield", "windowed")
COMMAND = "sam_lungs.phantom"


@pytest.fixture(scope="module")
def volume():
    return phantom_volume(seed=0, case=1, slices=24, variant="hounsfield", shape=(192, 192))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phantom")
    write_phantoms(folder, cases=2, slices=4, seed=3)
    return folder


def digest(*arrays):
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


# Pinned: the phantom is an embedded example, so a change of a single voxel must be on purpose.
@pytest.mark.parametrize(
    ("variant", "expected"),
    [
        ("hounsfield", "52f0271d3126007618c2d4534b53d801605ee0a6d4cbc85a0b4edc4484b16cbe"),
        ("windowed", "debdebe18fadf1c905587904329d8e41b43c7136588486c520fa4e2caa4d56ea"),
    ],
)
def test_a_tiny_volume_has_exactly_these_voxels(variant, expected):
    image, masks, _ = phantom_volume(seed=0, case=1, slices=4, variant=variant, shape=(64, 80))
    assert digest(image, masks) == expected


def test_another_seed_or_case_is_another_patient():
    digests = {
        digest(phantom_volume(seed, case, 2, "hounsfield", (48, 48))[0])
        for seed, case in ((0, 1), (1, 1), (0, 2))
    }
    assert len(digests) == 3


def test_files_of_one_seed_are_the_same_bytes(folder, tmp_path):
    write_phantoms(tmp_path, cases=2, slices=4, seed=3)
    names = sorted(path.relative_to(folder) for path in folder.rglob("*.*"))
    assert names == [
        Path(kind, f"phantom_{case:03d}.nii.gz") for kind in ("CT", "Lung_Mask") for case in (1, 2)
    ]
    for name in names:
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes()


def test_gzip_header_holds_neither_time_nor_name(folder):
    header = (folder / "CT" / "phantom_001.nii.gz").read_bytes()[:10]
    assert header[3] == 0  # flags: no name
    assert header[4:8] == bytes(4)  # no time


def test_files_hold_the_volume_with_its_first_two_axes_swapped(folder):
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
def test_labels_are_on_the_patients_side_that_the_affine_says(variant, case):
    image, masks, affine = phantom_volume(1, case, 16, variant, (96, 112))
    assert masks.shape == image.shape
    assert set(np.unique(masks)) == {0, RIGHT_LUNG, LEFT_LUNG}

    def right_mm(label):  # x of a NIfTI file's "RAS" millimetres
        rows, columns, slices = np.nonzero(masks == label)
        return (affine @ np.stack([columns, rows, slices, np.ones_like(rows)]))[0].mean()

    assert right_mm(RIGHT_LUNG) > right_mm(LEFT_LUNG) + 60


def test_a_volume_runs_from_no_lung_through_tips_and_two_lungs_to_none(volume):
    _, masks, _ = volume
    areas = (masks > 0).sum(axis=(0, 1))
    assert areas[0] == areas[-1] == 0
    two_lungs = (masks == RIGHT_LUNG).any(axis=(0, 1)) & (masks == LEFT_LUNG).any(axis=(0, 1))
    assert two_lungs.sum() >= 12
    assert 0 < areas[areas > 0].min() < areas.max() / 8  # a tip


def test_lungs_are_darker_than_what_surrounds_them(volume):
    image, masks, _ = volume
    lungs = masks > 0
    near = np.zeros_like(lungs)
    for axis, step in ((0, 6), (0, -6), (1, 6), (1, -6)):
        near |= np.roll(lungs, step, axis=axis)
    assert np.median(image[lungs]) < -600
    assert np.median(image[near & ~lungs]) > -200


def test_trachea_is_air_inside_the_body_outside_the_masks(volume):
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
def test_samples_have_the_size_asked_for_and_lung_where_asked_for(variant, shape):
    dtype = {"hounsfield": np.int16, "windowed": np.uint8}[variant]
    for seed in range(12):
        image, masks = sample_slice(np.random.default_rng(seed), *shape, variant)
        assert image.shape == masks.shape == shape
        assert (image.dtype, masks.dtype) == (dtype, np.uint8)
        assert set(np.unique(masks)) <= {0, RIGHT_LUNG, LEFT_LUNG}
        assert masks.any()


def test_samples_repeat_for_a_seed_and_come_in_both_variants():
    draws = [sample_slice(np.random.default_rng(seed), 64, 64) for seed in range(12)]
    again = [sample_slice(np.random.default_rng(seed), 64, 64) for seed in range(12)]
    assert [digest(*draw) for draw in draws] == [digest(*draw) for draw in again]
    assert {image.dtype for image, _ in draws} == {np.dtype(np.int16), np.dtype(np.uint8)}


def test_samples_come_in_all_eight_orientations():
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


def test_command_writes_what_it_is_asked_for(run, tmp_path):
    folder = tmp_path / "new"
    result = run(COMMAND, "--output_folder", folder, "--cases", 1, "--slices", 2, "--seed", 5)
    assert result.returncode == 0, result.stderr
    with gzip.open(folder / "Lung_Mask" / "phantom_001.nii.gz") as stream:
        assert len(stream.read()) == 352 + 512 * 512 * 2
    left = [path.name for path in folder.rglob("*") if path.is_file()]
    assert left == ["phantom_001.nii.gz"] * 2  # and no temporary file


@pytest.mark.parametrize("option", ["--cases", "--slices"])
def test_command_refuses_a_number_below_one(run, tmp_path, option):
    result = run(COMMAND, "--output_folder", tmp_path, option, 0)
    assert_refused(result, "--cases and --slices must be at least 1, --seed at least 0")
    assert not list(tmp_path.iterdir())


def test_command_refuses_a_folder_it_cannot_write(run, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    result = run(COMMAND, "--output_folder", blocked, "--cases", 1, "--slices", 1)
    assert_refused(result, f"{blocked}: cannot be written")
