import hashlib

import nibabel as nib
import numpy as np
import pytest
from conftest import chest, save_nifti
from patient import PATIENT

from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.nifti import read_nifti
from sam_lungs.data.readers import check_same_grid, read_masks, read_volume
from sam_lungs.utils.errors import InputError


def compare_grids(image_path, masks_path, strict=False):
    return check_same_grid(read_volume(image_path), read_masks(masks_path), strict)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy", ".npz"])
def test_a_volume_has_the_hash_of_the_bytes_it_was_read_from(tmp_path, suffix):
    path = tmp_path / f"masks{suffix}"
    nifti = save_nifti(tmp_path / "masks.nii", PATIENT % 2)
    if "nii" in suffix:
        save_nifti(path, PATIENT % 2)
    else:
        write_numpy(read_nifti(nifti), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_volume(path).sha256 == read_masks(path).sha256 == sha256


def test_a_volume_is_independent_of_its_file(tmp_path):
    for name in ("image.nii", "image.npy"):
        nifti = save_nifti(tmp_path / "image.nii", PATIENT)
        write_numpy(read_nifti(nifti), tmp_path / "image.npy")
        volume = read_volume(tmp_path / name)
        with open(tmp_path / name, "r+b") as file:
            file.truncate(10)
        np.testing.assert_array_equal(volume.array, PATIENT)


def test_trailing_axes_of_length_1_are_dropped_and_others_refused(tmp_path):
    for shape in ((3, 4, 5, 1), (3, 4, 5, 1, 1), (3, 4, 1, 1), (3, 4, 5, 2), (3, 4), (3,)):
        nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)), tmp_path / "image.nii")
        np.save(tmp_path / "image.npy", np.ones(shape, np.uint8))
        if len(shape) >= 3 and max(shape[3:]) == 1:
            assert read_volume(tmp_path / "image.nii").array.shape == (4, 3, shape[2])
            assert read_volume(tmp_path / "image.npy").array.shape == shape[:3]
        else:
            for name in ("image.nii", "image.npy"):
                with pytest.raises(InputError, match=r"three dimensions"):
                    read_volume(tmp_path / name)


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize("dtype", [np.complex64, RGB])
def test_voxels_that_are_not_real_numbers_are_refused(tmp_path, dtype):
    array = np.zeros((3, 4, 5), dtype)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "image.nii")
    np.save(tmp_path / "image.npy", array)
    for name in ("image.nii", "image.npy"):
        with pytest.raises(InputError, match="real numbers"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e39, -1e300])
def test_voxels_that_are_not_finite_are_refused(tmp_path, value):
    array = np.zeros((3, 4, 5))
    array[2, 3, 4] = value
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "image.nii")
    np.save(tmp_path / "image.npy", array)
    np.savez(tmp_path / "image.npz", array)
    for name in ("image.nii", "image.npy", "image.npz"):
        with pytest.raises(InputError, match="NaN or infinite"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy", ".npz"])
def test_a_file_of_noise_is_refused(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    for content in (b"", b"\0" * 400, bytes(range(256)) * 3, b"slice,jaccard,dice\n0,,\n"):
        path.write_bytes(content)
        with pytest.raises(InputError):
            read_volume(path)


def test_labels_that_float32_would_merge_are_refused(tmp_path):
    labels = np.zeros((3, 4, 5))
    labels[0, 0, :2] = 2**40, 2**40 + 1
    np.save(tmp_path / "masks.npy", labels)
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "masks.nii")
    for name in ("masks.npy", "masks.nii"):
        with pytest.raises(InputError, match="32 bits"):
            read_masks(tmp_path / name)


@pytest.mark.parametrize("name", ["image.dcm", "image", "image.npy", "image.npz", "image.nii.gz"])
def test_a_missing_file_and_another_suffix_are_refused(tmp_path, name):
    with pytest.raises(InputError, match=name):
        read_volume(tmp_path / name)


def test_masks_within_a_thousandth_of_an_integer_are_rounded(tmp_path):
    labels = np.array([[[0, 1, 2.0009, 0.9991]]], dtype=np.float32)
    np.save(tmp_path / "masks.npy", labels)
    masks = read_masks(tmp_path / "masks.npy").array
    assert masks.tolist() == [[[0, 1, 2, 1]]]
    assert masks.dtype == np.uint8
    np.save(tmp_path / "masks.npy", labels + np.float32(0.0011))
    with pytest.raises(InputError, match="integral"):
        read_masks(tmp_path / "masks.npy")


def test_masks_that_are_all_background_are_refused(tmp_path):
    np.save(tmp_path / "masks.npy", np.full((2, 3, 4), 0.0001))
    with pytest.raises(InputError, match="all background"):
        read_masks(tmp_path / "masks.npy")


def test_different_shapes_are_refused(tmp_path):
    image, masks = chest()
    save_nifti(tmp_path / "image.nii", image)
    save_nifti(tmp_path / "masks.nii", masks[:, :, 1:])
    with pytest.raises(InputError, match=r"\(40, 56, 2\)"):
        compare_grids(tmp_path / "image.nii", tmp_path / "masks.nii")


def test_different_affines_give_a_warning_or_with_strict_an_error(tmp_path):
    image, masks = chest()
    save_nifti(tmp_path / "image.nii", image)
    save_nifti(tmp_path / "same.nii", masks)
    save_nifti(tmp_path / "other.nii", masks, np.diag([-0.7, -0.8, 5.01, 1]))
    np.save(tmp_path / "unknown.npy", masks)

    for strict in (False, True):
        warning = compare_grids(tmp_path / "image.nii", tmp_path / "same.nii", strict)
        assert warning is None
    warning = compare_grids(tmp_path / "image.nii", tmp_path / "other.nii")
    assert "affine" in warning
    with pytest.raises(InputError, match="--strict_geometry"):
        compare_grids(tmp_path / "image.nii", tmp_path / "other.nii", strict=True)

    warning = compare_grids(tmp_path / "image.nii", tmp_path / "unknown.npy")
    assert warning is None
    with pytest.raises(InputError, match=r"unknown\.npy.*not known"):
        compare_grids(tmp_path / "image.nii", tmp_path / "unknown.npy", strict=True)


def test_an_image_and_masks_converted_differently_give_a_warning(tmp_path):
    image, masks = chest(40, 40)
    save_nifti(tmp_path / "image.nii", image)
    save_nifti(tmp_path / "masks.nii", masks)
    write_numpy(read_nifti(tmp_path / "image.nii", "radiological"), tmp_path / "image.npy")
    affine = np.diag([0.7, -0.8, 5, 1])
    save_nifti(tmp_path / "masks.nii", masks, affine)
    write_numpy(read_nifti(tmp_path / "masks.nii", "paper"), tmp_path / "masks.npy")
    warning = compare_grids(tmp_path / "image.npy", tmp_path / "masks.npy")
    assert warning
