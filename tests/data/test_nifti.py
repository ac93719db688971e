import nibabel as nib
import numpy as np
import pytest
from conftest import save_nifti
from patient import ALL_ORIENTATIONS, PATIENT, PATIENT_AFFINE, stored_as

from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.nifti import read_nifti, write_nifti
from sam_lungs.data.readers import read_volume


def test_there_are_48_orientations():
    assert len(set(ALL_ORIENTATIONS)) == 48


@pytest.mark.parametrize("codes", ALL_ORIENTATIONS)
def test_radiological_gives_the_same_array_for_every_file_orientation(tmp_path, codes):
    nib.save(stored_as(codes), tmp_path / "image.nii")
    volume = read_nifti(tmp_path / "image.nii", "radiological")
    np.testing.assert_array_equal(volume.array, PATIENT)
    np.testing.assert_allclose(volume.geometry.array_affine, PATIENT_AFFINE)
    assert volume.geometry.orientation == "PLS"
    assert volume.geometry.spacing_mm == (0.5, 0.75, 2)


@pytest.mark.parametrize("codes", ALL_ORIENTATIONS)
def test_paper_swaps_the_first_two_axes_and_changes_nothing_else(tmp_path, codes):
    image = stored_as(codes)
    nib.save(image, tmp_path / "image.nii.gz")
    volume = read_nifti(tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(volume.array, image.get_fdata().swapaxes(0, 1))
    assert volume.geometry.orientation == codes[1] + codes[0] + codes[2]
    # Every voxel keeps its place in the patient.
    for voxel in np.ndindex(volume.array.shape):
        place_mm = nib.affines.apply_affine(volume.geometry.array_affine, voxel)
        in_patient = nib.affines.apply_affine(np.linalg.inv(PATIENT_AFFINE), place_mm)
        assert volume.array[voxel] == PATIENT[tuple(np.rint(in_patient).astype(int))]


@pytest.mark.parametrize("orientation", ["paper", "radiological"])
@pytest.mark.parametrize("codes", ALL_ORIENTATIONS)
def test_a_mask_is_written_on_the_grid_of_its_image(tmp_path, codes, orientation):
    nib.save(stored_as(codes), tmp_path / "image.nii")
    write_numpy(read_nifti(tmp_path / "image.nii", orientation), tmp_path / "image.npy")
    volume = read_volume(tmp_path / "image.npy")
    mask = (volume.array % 3 == 0).astype(np.uint8)

    write_nifti(mask, volume.geometry, tmp_path / "mask.nii.gz")
    original, restored = nib.load(tmp_path / "image.nii"), nib.load(tmp_path / "mask.nii.gz")
    np.testing.assert_array_equal(restored.dataobj, np.asarray(original.dataobj) % 3 == 0)
    np.testing.assert_array_equal(restored.affine, original.affine)
    assert restored.get_data_dtype() == np.uint8
    assert nib.aff2axcodes(restored.affine) == tuple(codes)


def test_an_oblique_volume_is_turned_to_the_nearest_axes_and_back_exactly(tmp_path):
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    image = stored_as("LAI")
    affine = tilt @ image.affine
    nib.save(nib.Nifti1Image(image.dataobj, affine), tmp_path / "image.nii")
    volume = read_nifti(tmp_path / "image.nii", "radiological")
    np.testing.assert_array_equal(volume.array, PATIENT)
    write_nifti(volume.array, volume.geometry, tmp_path / "back.nii")
    back = nib.load(tmp_path / "back.nii")
    np.testing.assert_array_equal(back.dataobj, image.dataobj)
    np.testing.assert_allclose(back.affine, affine, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([0, 255], np.uint8),
        ([-1, 255], np.int16),
        ([0, 256], np.int16),
        ([-32768, 32767], np.int16),
        ([0, 32768], np.int32),
        ([-(2**31), 2**31 - 1], np.int32),
        ([0, 2**31], np.float32),
        ([0.0, 1.0], np.uint8),
        ([0.0, 0.5], np.float32),
    ],
)
def test_values_get_the_smallest_dtype_that_holds_them(tmp_path, values, dtype):
    image = nib.Nifti1Image(np.array(values, dtype=np.float64)[:, None, None], np.eye(4))
    nib.save(image, tmp_path / "image.nii")
    volume = read_nifti(tmp_path / "image.nii")
    assert volume.array.dtype == dtype
    assert volume.array.ravel().tolist() == values


def test_the_scaling_of_the_file_is_applied(tmp_path):
    image = nib.Nifti1Image(PATIENT, np.eye(4))
    image.header.set_slope_inter(2, -1024)
    nib.save(image, tmp_path / "image.nii")
    stored = np.asarray(nib.load(tmp_path / "image.nii").dataobj)
    volume = read_nifti(tmp_path / "image.nii")
    np.testing.assert_array_equal(volume.array, stored.swapaxes(0, 1))
    assert volume.array.dtype == np.int16


def test_an_affine_without_a_code_in_the_header_is_ignored(tmp_path):
    path = save_nifti(tmp_path / "image.nii", PATIENT)
    content = bytearray(path.read_bytes())
    for qform_code, sform_code in ((0, 0), (1, 0), (0, 1)):
        content[252:256] = bytes([qform_code, 0, sform_code, 0])
        path.write_bytes(content)
        known = read_nifti(path).geometry is not None
        assert known == bool(qform_code or sform_code)


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float64])
def test_a_mask_of_any_dtype_is_written_as_uint8(tmp_path, dtype):
    volume = read_nifti(save_nifti(tmp_path / "image.nii", PATIENT))
    mask = volume.array % 2 == 0
    write_nifti(mask.astype(dtype), volume.geometry, tmp_path / "mask.nii.gz")
    written = read_volume(tmp_path / "mask.nii.gz").array
    assert nib.load(tmp_path / "mask.nii.gz").get_data_dtype() == np.uint8
    np.testing.assert_array_equal(written, mask)


def test_nifti_2_is_read_like_nifti_1(tmp_path):
    nib.save(nib.Nifti2Image(PATIENT, PATIENT_AFFINE), tmp_path / "image.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "image.nii", "radiological").array, PATIENT)
