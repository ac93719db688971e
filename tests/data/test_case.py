import numpy as np
import pytest
from conftest import chest, save_nifti

from sam_lungs.data.readers import read_case
from sam_lungs.data.windowing import LUNG_WINDOW, Window

IMAGE, MASKS = chest(slices=5)


@pytest.fixture
def paths(tmp_path):
    image_path = save_nifti(tmp_path / "image.nii.gz", IMAGE)
    return image_path, save_nifti(tmp_path / "masks.nii.gz", MASKS)


def test_a_case_without_faults(paths):
    case = read_case(*paths)
    assert (case.image_path, case.masks_path) == paths
    assert case.name == "image"
    np.testing.assert_array_equal(case.image.array, IMAGE)
    np.testing.assert_array_equal(case.masks.array, MASKS)
    assert case.window == LUNG_WINDOW
    assert case.geometry_warning is None
    assert case.faults == []


def test_the_window_is_an_option(paths):
    assert read_case(*paths, window="none").window is None
    assert read_case(*paths, window="40,400").window == Window(40, 400)


def test_slices_without_lung_are_skipped_or_prompted_by_the_nearest_slice_with_lung(
    tmp_path, paths
):
    masks = MASKS.copy()
    masks[:, :, 2] = 0
    case = read_case(paths[0], save_nifti(tmp_path / "masks.nii", masks))
    assert case.lung_slices == [1, 3, 4]
    assert case.prompted("skip") == {1: 1, 3: 3, 4: 4}
    assert case.prompted("prompt") == {0: 1, 1: 1, 2: 1, 3: 3, 4: 4}


def test_every_fault_is_collected_and_names_its_file(tmp_path, paths):
    image_path = save_nifti(tmp_path / "ambiguous.nii", IMAGE.clip(-400))
    masks_path = save_nifti(tmp_path / "short.nii", MASKS[:, :, 1:])
    case = read_case(image_path, masks_path)
    window_fault, grid_fault = case.faults
    assert window_fault.startswith(f"{image_path}: values from -400 to 40")
    assert grid_fault.startswith(f"{masks_path}: masks have shape (40, 56, 4)")
    assert case.image is not None
    assert case.masks is not None
    assert case.window is None


def test_files_that_cannot_be_read_are_none(tmp_path):
    (tmp_path / "broken.nii").touch()
    case = read_case(tmp_path / "missing.npy", tmp_path / "broken.nii")
    assert (case.image, case.masks, case.window, case.geometry_warning) == (None,) * 4
    missing, broken = case.faults
    assert missing.startswith(f"{tmp_path / 'missing.npy'}: no such file")
    assert broken.startswith(f"{tmp_path / 'broken.nii'}: not a valid NIfTI file")


def test_different_affines_are_a_warning_or_with_strict_geometry_a_fault(tmp_path, paths):
    masks_path = save_nifti(tmp_path / "moved.nii", MASKS, np.diag([-0.7, -0.8, 6, 1]))
    case = read_case(paths[0], masks_path)
    assert "affine" in case.geometry_warning
    assert case.faults == []
    case = read_case(paths[0], masks_path, strict_geometry=True)
    assert case.geometry_warning is None
    assert "--strict_geometry" in case.faults[0]
