import json
import os
import zipfile

import nibabel as nib
import numpy as np
import pytest
from conftest import chest, save_nifti
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from patient import PATIENT, stored_as

from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.nifti import read_nifti
from sam_lungs.data.readers import read_volume
from sam_lungs.data.volume import Volume
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


def test_a_npz_must_hold_one_array(tmp_path):
    np.savez(tmp_path / "image.npz", a=PATIENT, b=PATIENT)
    with pytest.raises(InputError, match="one array"):
        read_volume(tmp_path / "image.npz")
    with zipfile.ZipFile(tmp_path / "image.npz", "w") as archive:
        archive.writestr("readme.txt", "no array")
    with pytest.raises(InputError):
        read_volume(tmp_path / "image.npz")


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
