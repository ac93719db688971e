import hashlib

import nibabel as nib
import numpy as np
import pytest
from conftest import save_nifti
from patient import PATIENT

from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.names import SUFFIXES
from sam_lungs.data.nifti import read_nifti, write_nifti
from sam_lungs.data.readers import READERS, identify, read_volume
from sam_lungs.utils.errors import InputError


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy", ".npz"])
def test_a_volume_has_the_hash_of_the_bytes_it_was_read_from(tmp_path, suffix):
    path = tmp_path / f"masks{suffix}"
    nifti = save_nifti(tmp_path / "masks.nii", PATIENT % 2)
    if "nii" in suffix:
        save_nifti(path, PATIENT % 2)
    else:
        write_numpy(read_nifti(nifti), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_volume(path).sha256 == identify(path)["sha256"] == sha256
    assert read_volume(path).identity == identify(path)


def test_every_suffix_that_a_case_name_leaves_out_has_a_reader():
    assert READERS.keys() == set(SUFFIXES)


def test_a_volume_is_independent_of_its_file(tmp_path):
    for name in ("image.nii", "image.npy"):
        nifti = save_nifti(tmp_path / "image.nii", PATIENT)
        write_numpy(read_nifti(nifti), tmp_path / "image.npy")
        volume = read_volume(tmp_path / name)
        with open(tmp_path / name, "r+b") as file:
            file.truncate(10)
        np.testing.assert_array_equal(volume.array, PATIENT)


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


@pytest.mark.parametrize("suffix", READERS)
def test_a_file_of_noise_is_refused(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    for content in (b"", b"\0" * 400, bytes(range(256)) * 3, b"slice,jaccard,dice\n0,,\n"):
        path.write_bytes(content)
        with pytest.raises(InputError):
            read_volume(path)


@pytest.mark.parametrize(
    "name",
    [
        "image.dcm",
        "image.png",
        "image.nrrd",
        "image.mha",
        "image",
        "image.npy",
        "image.npz",
        "image.nii.gz",
    ],
)
def test_a_missing_file_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=name):
        read_volume(tmp_path / name)


@pytest.mark.parametrize("name", ["image", "image.gz", "image.txt", ".nii.gz.bak"])
def test_another_suffix_is_refused_with_the_suffixes_that_are_read(tmp_path, name):
    (tmp_path / name).touch()
    with pytest.raises(InputError) as error:
        read_volume(tmp_path / name)
    for word in (name, "folder of DICOM files", *READERS):
        assert word in str(error.value)


def test_a_spacing_is_for_files_without_one(tmp_path):
    np.save(tmp_path / "image.npy", PATIENT)
    assert read_volume(tmp_path / "image.npy").geometry is None
    volume = read_volume(tmp_path / "image.npy", spacing_mm=(0.5, 0.75, 2))
    assert volume.geometry.spacing_mm == (0.5, 0.75, 2)
    assert not volume.geometry.is_oriented
    with pytest.raises(InputError, match=r"image\.npy: .* --spacing_mm ROWS,COLUMNS,SLICES"):
        read_volume(tmp_path / "image.npy", spacing_mm=(0.5, 0.75))
    write_nifti(volume.array, volume.geometry, tmp_path / "again.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "again.nii").array, PATIENT)

    nifti = save_nifti(tmp_path / "image.nii", PATIENT)
    for spacing_mm in ((0.8, 0.7), (0.8, 0.7, 5), (0.8, 0.7, 5.0001)):
        volume = read_volume(nifti, spacing_mm=spacing_mm)
        assert volume.geometry.is_oriented
        np.testing.assert_allclose(volume.geometry.spacing_mm, (0.8, 0.7, 5))
    for spacing_mm in ((0.7, 0.8), (0.8, 0.7, 5.1)):
        with pytest.raises(InputError, match=r"image\.nii: its spacing is 0\.8,0\.7.* mm"):
            read_volume(nifti, spacing_mm=spacing_mm)


def test_options_that_a_file_cannot_take_are_refused(tmp_path):
    np.save(tmp_path / "image.npy", PATIENT)
    nifti = save_nifti(tmp_path / "image.nii", PATIENT)
    with pytest.raises(InputError, match=r"image\.nii: only DICOM has series"):
        read_volume(nifti, series="1.2.3")
    with pytest.raises(InputError, match=r"image\.npy: .* --orientation paper"):
        read_volume(tmp_path / "image.npy", orientation="radiological")
