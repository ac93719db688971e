import hashlib
import itertools
import json
import os
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import chest, save_nifti
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from nibabel import orientations

from sam_lungs.data.volumes import (
    Volume,
    read_masks,
    read_nifti,
    read_pair,
    read_volume,
    volume_name,
    write_nifti,
    write_numpy,
)
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import sha256_of

ALL_ORIENTATIONS = [
    "".join(codes)
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for codes in itertools.product(*axes)
]

# A patient of 3 x 4 x 5 different voxels of 0.5 x 0.75 x 2 mm, its axes growing towards P, L, S.
PATIENT = np.arange(60, dtype=np.int16).reshape(3, 4, 5) - 7
PATIENT_AFFINE = np.array([[0, -0.75, 0, 9], [-0.5, 0, 0, -8], [0, 0, 2, 30], [0, 0, 0, 1.0]])


def stored_as(codes: str) -> nib.Nifti1Image:
    """The patient in a file whose axes grow towards `codes`."""
    return nib.Nifti1Image(PATIENT, PATIENT_AFFINE).as_reoriented(
        orientations.ornt_transform(
            orientations.axcodes2ornt("PLS"), orientations.axcodes2ornt(codes)
        )
    )


def test_there_are_48_orientations():
    assert len(set(ALL_ORIENTATIONS)) == 48


@pytest.mark.parametrize("codes", ALL_ORIENTATIONS)
def test_radiological_gives_the_same_patient_from_every_orientation(tmp_path, codes):
    nib.save(stored_as(codes), tmp_path / "image.nii")
    volume = read_nifti(tmp_path / "image.nii", "radiological")
    np.testing.assert_array_equal(volume.array, PATIENT)
    np.testing.assert_allclose(volume.geometry.array_affine, PATIENT_AFFINE)
    assert volume.geometry.orientation == "PLS"
    assert volume.geometry.spacing_mm == (0.5, 0.75, 2)


@pytest.mark.parametrize("codes", ALL_ORIENTATIONS)
def test_paper_swaps_the_first_two_axes_and_moves_nothing_else(tmp_path, codes):
    image = stored_as(codes)
    nib.save(image, tmp_path / "image.nii.gz")
    volume = read_nifti(tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(volume.array, image.get_fdata().swapaxes(0, 1))
    assert volume.geometry.orientation == codes[1] + codes[0] + codes[2]
    assert volume.array.shape == volume.geometry.array_shape
    # Every voxel keeps its place in the patient.
    for voxel in np.ndindex(volume.array.shape):
        place_mm = nib.affines.apply_affine(volume.geometry.array_affine, voxel)
        in_patient = nib.affines.apply_affine(np.linalg.inv(PATIENT_AFFINE), place_mm)
        assert volume.array[voxel] == PATIENT[tuple(np.rint(in_patient).astype(int))]


@pytest.mark.parametrize("orientation", ["paper", "radiological"])
@pytest.mark.parametrize("codes", ALL_ORIENTATIONS)
def test_a_mask_goes_back_onto_the_grid_of_its_image(tmp_path, codes, orientation):
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


def test_an_oblique_volume_is_turned_to_the_nearest_axes_and_goes_back_exactly(tmp_path):
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
def test_values_come_in_the_smallest_dtype_that_holds_them(tmp_path, values, dtype):
    image = nib.Nifti1Image(np.array(values, dtype=np.float64)[:, None, None], np.eye(4))
    nib.save(image, tmp_path / "image.nii")
    volume = read_nifti(tmp_path / "image.nii")
    assert volume.array.dtype == dtype
    assert volume.array.ravel().tolist() == values


def test_the_files_scaling_is_applied(tmp_path):
    image = nib.Nifti1Image(PATIENT, np.eye(4))
    image.header.set_slope_inter(2, -1024)
    nib.save(image, tmp_path / "image.nii")
    stored = np.asarray(nib.load(tmp_path / "image.nii").dataobj)
    volume = read_nifti(tmp_path / "image.nii")
    np.testing.assert_array_equal(volume.array, stored.swapaxes(0, 1))
    assert volume.array.dtype == np.int16


@given(
    arrays(
        st.sampled_from([np.uint8, np.int16, np.int32, np.float32]),
        st.tuples(*[st.integers(1, 4)] * 3),
        elements={"allow_nan": False, "allow_infinity": False},
    ),
    st.sampled_from([".npy", ".npz"]),
)
def test_arrays_come_back_from_numpy_files_as_they_were(tmp_path_factory, array, suffix):
    path = tmp_path_factory.mktemp("numpy") / f"image{suffix}"
    write_numpy(Volume(array, None, path), path)
    read = read_volume(path)
    assert read.array.dtype == array.dtype
    np.testing.assert_array_equal(read.array, array)
    assert read.geometry is None


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_converted_array_has_each_slice_in_one_piece(tmp_path, suffix):
    image = read_nifti(save_nifti(tmp_path / "image.nii", chest()[0]))
    write_numpy(image, tmp_path / f"image{suffix}")
    array = read_volume(tmp_path / f"image{suffix}").array
    assert array[:, :, 1].flags.f_contiguous


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy", ".npz"])
def test_a_volume_knows_the_hash_of_the_bytes_it_was_read_from(tmp_path, suffix):
    path = tmp_path / f"masks{suffix}"
    nifti = save_nifti(tmp_path / "masks.nii", PATIENT % 2)
    if "nii" in suffix:
        save_nifti(path, PATIENT % 2)
    else:
        write_numpy(read_nifti(nifti), path)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert read_volume(path).sha256 == read_masks(path).sha256 == sha256


def test_a_volume_outlives_its_file(tmp_path):
    for name in ("image.nii", "image.npy"):
        nifti = save_nifti(tmp_path / "image.nii", PATIENT)
        write_numpy(read_nifti(nifti), tmp_path / "image.npy")
        volume = read_volume(tmp_path / name)
        with open(tmp_path / name, "r+b") as file:
            file.truncate(10)
        np.testing.assert_array_equal(volume.array, PATIENT)


@pytest.mark.parametrize("orientation", ["paper", "radiological"])
def test_how_it_was_converted_is_a_json_to_read(tmp_path, orientation):
    nib.save(stored_as("LPS"), tmp_path / "image.nii")
    write_numpy(read_nifti(tmp_path / "image.nii", orientation), tmp_path / "image.npz")
    record = json.loads((tmp_path / "image.npz.json").read_text())
    assert record["source"] == "image.nii"
    assert record["source_sha256"] == sha256_of(tmp_path / "image.nii")
    assert record["array_sha256"] == sha256_of(tmp_path / "image.npz")
    assert record["orientation_option"] == orientation
    assert record["orientation"] == "PLS"
    assert record["spacing_mm"] == [0.5, 0.75, 2]
    assert record["affine"] == stored_as("LPS").affine.tolist()


def test_another_programs_json_is_left_alone(tmp_path):
    """BIDS puts what it knows of image.nii.gz into image.json."""
    (tmp_path / "image.json").write_text('{"Modality": "CT"}')
    write_numpy(read_nifti(save_nifti(tmp_path / "image.nii", PATIENT)), tmp_path / "image.npy")
    assert read_volume(tmp_path / "image.npy").geometry is not None
    assert (tmp_path / "image.json").read_text() == '{"Modality": "CT"}'


def test_an_affine_that_no_header_code_vouches_for_is_not_believed(tmp_path):
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


def test_a_degenerate_affine_gives_no_geometry_but_a_json(tmp_path):
    write_numpy(read_nifti(save_nifti(tmp_path / "a.nii", PATIENT)), tmp_path / "image.npy")
    image = nib.Nifti1Image(PATIENT, None)
    image.header["sform_code"] = 2
    nib.save(image, tmp_path / "b.nii")
    volume = read_nifti(tmp_path / "b.nii")
    assert volume.geometry is None
    write_numpy(volume, tmp_path / "image.npy")
    record = json.loads((tmp_path / "image.npy.json").read_text())
    assert record["source_sha256"] == sha256_of(tmp_path / "b.nii")
    assert "affine" not in record
    assert read_volume(tmp_path / "image.npy").geometry is None
    with pytest.raises(InputError, match="no usable affine"):
        read_nifti(tmp_path / "b.nii", "radiological")


def test_trailing_axes_of_one_are_dropped_and_others_refused(tmp_path):
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
def test_voxels_that_are_no_real_numbers_are_refused(tmp_path, dtype):
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


def test_nifti_2_is_read_like_nifti_1(tmp_path):
    nib.save(nib.Nifti2Image(PATIENT, PATIENT_AFFINE), tmp_path / "image.nii")
    np.testing.assert_array_equal(read_nifti(tmp_path / "image.nii", "radiological").array, PATIENT)


def test_a_npz_must_hold_one_array(tmp_path):
    np.savez(tmp_path / "image.npz", a=PATIENT, b=PATIENT)
    with pytest.raises(InputError, match="one array"):
        read_volume(tmp_path / "image.npz")
    with zipfile.ZipFile(tmp_path / "image.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(InputError):
        read_volume(tmp_path / "image.npz")


def test_labels_that_float32_would_merge_are_refused(tmp_path):
    labels = np.zeros((3, 4, 5))
    labels[0, 0, :2] = 2**40, 2**40 + 1
    np.save(tmp_path / "masks.npy", labels)
    nib.save(nib.Nifti1Image(labels, np.eye(4)), tmp_path / "masks.nii")
    for name in ("masks.npy", "masks.nii"):
        with pytest.raises(InputError, match="32 bits"):
            read_masks(tmp_path / name)


@pytest.mark.parametrize("name", ["image.dcm", "image", "image.npy", "image.npz", "image.nii.gz"])
def test_a_missing_or_foreign_file_is_refused(tmp_path, name):
    with pytest.raises(InputError, match=name):
        read_volume(tmp_path / name)


OLD_RECORD = {
    "source": "image.nii",
    "affine": np.eye(4).tolist(),
    "file_shape": [4, 3, 5],
    "file_to_array": [[1, 1], [0, 1], [2, 1]],
}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", "1", '"a"', "null", "[" * 100_000, "1" * 5000, "\0", json.dumps(OLD_RECORD)],
    ids=lambda text: text[:9],
)
def test_a_json_that_is_no_conversions_is_refused(tmp_path, text):
    np.save(tmp_path / "image.npy", PATIENT)
    (tmp_path / "image.npy.json").write_text(text)
    with pytest.raises(InputError, match=r"image\.npy\.json: not the record.*; convert the volume"):
        read_volume(tmp_path / "image.npy")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_array_that_its_json_does_not_describe_is_refused(tmp_path, suffix):
    nifti, path = save_nifti(tmp_path / "image.nii", PATIENT), tmp_path / f"image{suffix}"
    write_numpy(read_nifti(nifti), path)
    record = (tmp_path / f"image{suffix}.json").read_bytes()
    write_numpy(read_nifti(save_nifti(tmp_path / "image.nii", PATIENT + 1)), path)
    (tmp_path / f"image{suffix}.json").write_bytes(record)
    with pytest.raises(InputError, match=r"not the array that .* describes: convert it again"):
        read_volume(path)
    (tmp_path / f"image{suffix}.json").unlink()
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, PATIENT + 1)
    assert volume.geometry is None


def test_a_kill_between_json_and_array_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "image.npy"
    write_numpy(read_nifti(save_nifti(tmp_path / "image.nii", PATIENT)), path)
    before = path.read_bytes()
    newer = read_nifti(save_nifti(tmp_path / "image.nii", PATIENT + 1))
    move = os.replace

    def killed(source, target):
        if target == path:
            raise KeyboardInterrupt
        move(source, target)

    monkeypatch.setattr(os, "replace", killed)
    with pytest.raises(KeyboardInterrupt):
        write_numpy(newer, path)
    assert path.read_bytes() == before
    with pytest.raises(InputError, match="not the array that"):
        read_volume(path)


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


def test_a_pair_of_different_shapes_is_refused(tmp_path):
    image, masks = chest()
    save_nifti(tmp_path / "image.nii", image)
    save_nifti(tmp_path / "masks.nii", masks[:, :, 1:])
    with pytest.raises(InputError, match=r"\(40, 56, 2\)"):
        read_pair(tmp_path / "image.nii", tmp_path / "masks.nii")


def test_affines_that_disagree_are_a_warning_and_strictly_an_error(tmp_path):
    image, masks = chest()
    save_nifti(tmp_path / "image.nii", image)
    save_nifti(tmp_path / "same.nii", masks)
    save_nifti(tmp_path / "other.nii", masks, np.diag([-0.7, -0.8, 5.01, 1]))
    np.save(tmp_path / "unknown.npy", masks)

    for strict in (False, True):
        *_, warning = read_pair(tmp_path / "image.nii", tmp_path / "same.nii", strict)
        assert warning is None
    *_, warning = read_pair(tmp_path / "image.nii", tmp_path / "other.nii")
    assert "affine" in warning
    with pytest.raises(InputError, match="--strict_geometry"):
        read_pair(tmp_path / "image.nii", tmp_path / "other.nii", strict_geometry=True)

    *_, warning = read_pair(tmp_path / "image.nii", tmp_path / "unknown.npy")
    assert warning is None
    with pytest.raises(InputError, match=r"unknown\.npy.*not known"):
        read_pair(tmp_path / "image.nii", tmp_path / "unknown.npy", strict_geometry=True)


def test_a_pair_that_was_turned_differently_disagrees(tmp_path):
    image, masks = chest(40, 40)
    save_nifti(tmp_path / "image.nii", image)
    save_nifti(tmp_path / "masks.nii", masks)
    write_numpy(read_nifti(tmp_path / "image.nii", "radiological"), tmp_path / "image.npy")
    affine = np.diag([0.7, -0.8, 5, 1])
    save_nifti(tmp_path / "masks.nii", masks, affine)
    write_numpy(read_nifti(tmp_path / "masks.nii", "paper"), tmp_path / "masks.npy")
    *_, warning = read_pair(tmp_path / "image.npy", tmp_path / "masks.npy")
    assert warning


def test_a_volumes_name_is_its_files_without_the_format():
    for name in ("a.b.npy", "a.b.npz", "a.b.nii", "a.b.nii.gz"):
        assert volume_name(Path("folder") / name) == "a.b"


@pytest.mark.parametrize("suffix", [".npy", ".npz", ".nii", ".nii.gz", ""])
@pytest.mark.parametrize("name", ["", ".", ".."])
def test_a_name_that_would_leave_the_results_folder_is_refused(name, suffix):
    with pytest.raises(InputError, match="rename it"):
        volume_name(Path("/folder") / f"{name}{suffix}" if suffix else Path(name))
