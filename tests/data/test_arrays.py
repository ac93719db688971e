import hashlib
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
from patient import PATIENT, PATIENT_AFFINE, follow_remedy, stored_as

from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.nifti import read_nifti
from sam_lungs.data.readers import read_volume
from sam_lungs.data.volume import Geometry, Volume
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import sha256_of


@given(
    arrays(
        st.sampled_from([np.uint8, np.int16, np.int32, np.float32]),
        st.tuples(*[st.integers(1, 4)] * 3),
        elements={"allow_nan": False, "allow_infinity": False},
    ),
    st.sampled_from([".npy", ".npz"]),
)
def test_arrays_are_read_as_they_were_written(tmp_path_factory, array, suffix):
    path = tmp_path_factory.mktemp("numpy") / f"image{suffix}"
    write_numpy(Volume(array, None, path), path)
    read = read_volume(path)
    assert read.array.dtype == array.dtype
    np.testing.assert_array_equal(read.array, array)
    assert read.geometry is None


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_each_slice_of_a_converted_array_is_contiguous(tmp_path, suffix):
    image = read_nifti(save_nifti(tmp_path / "image.nii", chest()[0]))
    write_numpy(image, tmp_path / f"image{suffix}")
    array = read_volume(tmp_path / f"image{suffix}").array
    assert array[:, :, 1].flags.f_contiguous


@pytest.mark.parametrize("orientation", ["paper", "radiological"])
def test_the_sidecar_says_how_the_array_was_converted(tmp_path, orientation):
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


def test_the_json_of_another_program_is_not_touched(tmp_path):
    """BIDS keeps the metadata of image.nii.gz in image.json."""
    (tmp_path / "image.json").write_text('{"Modality": "CT"}')
    write_numpy(read_nifti(save_nifti(tmp_path / "image.nii", PATIENT)), tmp_path / "image.npy")
    assert read_volume(tmp_path / "image.npy").geometry is not None
    assert (tmp_path / "image.json").read_text() == '{"Modality": "CT"}'


def test_a_degenerate_affine_gives_a_sidecar_without_geometry(tmp_path):
    write_numpy(read_nifti(save_nifti(tmp_path / "a.nii", PATIENT)), tmp_path / "image.npy")
    image = nib.Nifti1Image(PATIENT, None)
    image.header["sform_code"] = 2
    image.header["srow_x"] = 0
    nib.save(image, tmp_path / "b.nii")
    volume = read_nifti(tmp_path / "b.nii")
    assert volume.geometry is None
    write_numpy(volume, tmp_path / "image.npy")
    record = json.loads((tmp_path / "image.npy.json").read_text())
    assert record["source_sha256"] == sha256_of(tmp_path / "b.nii")
    assert "affine" not in record
    assert read_volume(tmp_path / "image.npy").geometry is None


def test_a_npz_must_hold_one_array(tmp_path, monkeypatch):
    path = tmp_path / "image.npz"
    np.savez(path, image=PATIENT, mask=PATIENT)
    with pytest.raises(InputError, match=r"must hold one array, but holds \['image', 'mask'\]"):
        read_volume(path)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read_volume(follow_remedy(path)).array, PATIENT)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(InputError):
        read_volume(path)
    with zipfile.ZipFile(path, "w"):
        pass
    with pytest.raises(InputError, match="holds no array; make it again"):
        read_volume(path)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        *[((3, 4), (3, 4, 1)), ((1, 3, 4), (3, 4, 1)), ((1, 1, 3, 4), (3, 4, 1))],
        *[((1, 3, 4, 1), (3, 4, 1)), ((3, 4, 1), (3, 4, 1)), ((3, 4, 1, 1), (3, 4, 1))],
        *[((1, 3, 4, 5), (3, 4, 5)), ((1, 1, 3, 4, 5, 1), (3, 4, 5)), ((3, 4, 5, 1), (3, 4, 5))],
        # Nobody's slices have one row of pixels; but here nothing else is possible.
        *[((1, 1, 5), (1, 1, 5)), ((1, 5, 1), (1, 5, 1)), ((1, 1, 1), (1, 1, 1))],
    ],
)
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("suffix", [".npy", ".NPZ"])
def test_axes_of_length_1_are_dropped(tmp_path, shape, expected, order, suffix):
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    path = tmp_path / f"image{suffix}"
    with open(path, "wb") as file:
        save = np.save if suffix == ".npy" else np.savez
        save(file, np.asarray(array, order=order))
    np.testing.assert_array_equal(read_volume(path).array, array.reshape(expected))


def test_an_array_with_a_sidecar_is_rows_columns_slices(tmp_path):
    """Also if each slice has one row."""
    write_numpy(Volume(PATIENT[:1], None, tmp_path / "image.nii"), tmp_path / "image.npy")
    np.testing.assert_array_equal(read_volume(tmp_path / "image.npy").array, PATIENT[:1])


HEADER_NUMBERS = st.floats() | st.floats(width=32) | st.integers(-(2**31), 2**31)


@given(
    affine=arrays(np.float64, (4, 4), elements={"allow_nan": False, "allow_infinity": False}),
    header=st.none()
    | st.dictionaries(st.text(max_size=9), HEADER_NUMBERS | st.lists(HEADER_NUMBERS, max_size=8)),
    flags=st.tuples(*[st.booleans()] * 3),
    source=st.none() | st.text(min_size=1, max_size=9),
)
def test_the_sidecar_keeps_the_geometry_exactly(tmp_path_factory, affine, header, flags, source):
    path = tmp_path_factory.mktemp("sidecar") / "image.npy"
    is_oriented, is_picture, is_placed = flags
    # The record also says the orientation, which an affine of noise does not have.
    affine = affine if not is_oriented else PATIENT_AFFINE * (1 + abs(affine[0, 0]) % 1)
    geometry = Geometry(affine, (4, 3, 5), np.array([[1, 1], [0, -1], [2, 1]]), is_oriented, header)
    written = Volume(
        PATIENT,
        geometry,
        Path("original.nrrd"),
        source_name=source,
        is_picture=is_picture,
        is_placed=is_placed,
    )
    with np.errstate(all="ignore"):
        write_numpy(written, path)
    volume = read_volume(path)
    assert (volume.is_picture, volume.is_placed) == (is_picture, is_placed)
    assert volume.source_name == (source or "original.nrrd")
    np.testing.assert_array_equal(volume.geometry.affine, affine)
    np.testing.assert_array_equal(volume.geometry.file_to_array, geometry.file_to_array)
    assert volume.geometry.file_shape == (4, 3, 5)
    assert volume.geometry.is_oriented == is_oriented
    assert repr(volume.geometry.header) == repr(header)  # NaN is not equal to itself


def test_the_name_of_the_source_is_kept(tmp_path):
    nib.save(stored_as("LPS"), tmp_path / "coronacases_001.nii.gz")
    volume = read_nifti(tmp_path / "coronacases_001.nii.gz")
    assert volume.source_name == "coronacases_001.nii.gz"
    write_numpy(volume, tmp_path / "image.npy")
    assert read_volume(tmp_path / "image.npy").source_name == "coronacases_001.nii.gz"
    (tmp_path / "image.npy.json").unlink()
    assert read_volume(tmp_path / "image.npy").source_name == "image.npy"


def test_a_sidecar_of_an_older_version_is_read(tmp_path):
    write_numpy(read_nifti(save_nifti(tmp_path / "a.nii", PATIENT)), tmp_path / "image.npy")
    sidecar = tmp_path / "image.npy.json"
    record = json.loads(sidecar.read_text())
    for name in ("header", "is_oriented", "is_picture", "is_placed", "record_sha256"):
        del record[name]
    record["record_sha256"] = hashlib.sha256(json.dumps(record).encode()).hexdigest()
    sidecar.write_text(json.dumps(record))
    volume = read_volume(tmp_path / "image.npy")
    assert volume.geometry.header is None
    assert volume.geometry.is_oriented
    assert not volume.is_picture
    assert volume.geometry.spacing_mm == pytest.approx((0.8, 0.7, 5))


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
def test_a_sidecar_that_is_not_a_conversion_record_is_refused(tmp_path, text):
    np.save(tmp_path / "image.npy", PATIENT)
    (tmp_path / "image.npy.json").write_text(text)
    with pytest.raises(
        InputError, match=r"image\.npy\.json: not a conversion record; convert the volume"
    ):
        read_volume(tmp_path / "image.npy")


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_array_that_its_sidecar_does_not_describe_is_refused(tmp_path, suffix):
    nifti, path = save_nifti(tmp_path / "image.nii", PATIENT), tmp_path / f"image{suffix}"
    write_numpy(read_nifti(nifti), path)
    record = (tmp_path / f"image{suffix}.json").read_bytes()
    write_numpy(read_nifti(save_nifti(tmp_path / "image.nii", PATIENT + 1)), path)
    (tmp_path / f"image{suffix}.json").write_bytes(record)
    with pytest.raises(
        InputError, match=r"not the array that .* describes; convert the volume again"
    ):
        read_volume(path)
    (tmp_path / f"image{suffix}.json").unlink()
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, PATIENT + 1)
    assert volume.geometry is None


def test_a_kill_between_writing_sidecar_and_array_is_detected(tmp_path, monkeypatch):
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
