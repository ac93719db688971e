import sys

import numpy as np
import pytest
import SimpleITK
from hypothesis import given, settings
from hypothesis import strategies as st
from patient import PATIENT
from scanner import OBLIQUE

from sam_lungs.data.nifti import read_nifti, write_nifti
from sam_lungs.data.readers import identify, read_volume
from sam_lungs.utils.errors import InputError

SUFFIXES = (".nrrd", ".nhdr", ".mha", ".mhd")
ROTATION = np.array([*OBLIQUE, np.cross(*np.array(OBLIQUE))]).T


def image(array=PATIENT, directions=ROTATION):
    """Return an ITK image of an array (rows, columns, slices), 0.5 x 0.75 x 2 mm."""
    volume = SimpleITK.GetImageFromArray(np.ascontiguousarray(np.moveaxis(array, 2, 0)))
    volume.SetSpacing((0.75, 0.5, 2))
    volume.SetOrigin((9, -8, 30))
    volume.SetDirection(np.ravel(directions).tolist())
    return volume


def write(path, volume, is_compressed=False):
    SimpleITK.WriteImage(volume, path, is_compressed)
    return path


def refused(path, *words, **options):
    with pytest.raises(InputError) as error:
        read_volume(path, **options)
    assert "\n" not in str(error.value)
    for word in (path.name, *words):
        assert word in str(error.value)


def assert_same(volume, expected):
    np.testing.assert_array_equal(volume.array, expected.array)
    assert volume.array.dtype == expected.array.dtype
    np.testing.assert_allclose(
        volume.geometry.array_affine, expected.geometry.array_affine, atol=1e-4
    )
    assert volume.geometry.file_shape == expected.geometry.file_shape
    assert volume.geometry.is_oriented


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_volume_is_read_as_its_nifti_file(tmp_path, suffix, is_compressed):
    nifti = write(tmp_path / "image.nii.gz", image())
    path = write(tmp_path / f"image{suffix}", image(), is_compressed)
    for orientation in ("paper", "radiological"):
        volume = read_volume(path, orientation=orientation)
        assert_same(volume, read_nifti(nifti, orientation))
        assert volume.identity == identify(path)
    np.testing.assert_array_equal(read_volume(path).array, PATIENT)
    renamed = path.rename(path.with_name(f"IMAGE{suffix.upper()}"))
    np.testing.assert_array_equal(read_volume(renamed).array, PATIENT)


@settings(max_examples=30)
@given(
    st.permutations(range(3)),
    st.tuples(*[st.sampled_from([-1, 1])] * 3),
    st.sampled_from([np.eye(3), ROTATION]),
    st.sampled_from(["paper", "radiological"]),
)
def test_any_orientation_is_read_as_its_nifti_file(
    tmp_path_factory, axes, signs, rotation, orientation
):
    folder = tmp_path_factory.mktemp("any")
    volume = image(directions=rotation @ (np.eye(3)[list(axes)] * signs))
    expected = read_nifti(write(folder / "image.nii", volume), orientation)
    for suffix in (".nrrd", ".mha"):
        path = write(folder / f"image{suffix}", volume)
        assert_same(read_volume(path, orientation=orientation), expected)


def test_the_real_volume_is_read_as_its_nifti_file(tmp_path, real_data):
    nifti = real_data / "chest_64" / "ct.nii.gz"
    path = write(tmp_path / "ct.nrrd", SimpleITK.ReadImage(nifti), True)
    assert_same(read_volume(path), read_nifti(nifti))


def test_a_mask_of_a_volume_lies_on_it_for_itk(tmp_path):
    path = write(tmp_path / "image.nrrd", image())
    volume = read_volume(path)
    write_nifti(volume.array, volume.geometry, tmp_path / "mask.nii.gz")
    mask, original = SimpleITK.ReadImage(tmp_path / "mask.nii.gz"), SimpleITK.ReadImage(path)
    np.testing.assert_array_equal(
        SimpleITK.GetArrayFromImage(mask), SimpleITK.GetArrayFromImage(original)
    )
    for index in ((0, 0, 0), (3, 2, 4)):
        np.testing.assert_allclose(
            mask.TransformIndexToPhysicalPoint(index),
            original.TransformIndexToPhysicalPoint(index),
            atol=1e-4,
        )


def test_fractions_stay_and_integral_floats_become_integers(tmp_path):
    path = write(tmp_path / "image.mha", image(PATIENT.astype(np.float64)))
    assert read_volume(path).array.dtype == np.int16
    path = write(tmp_path / "image.mha", image(PATIENT + 0.5))
    np.testing.assert_array_equal(read_volume(path).array, (PATIENT + 0.5).astype(np.float32))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_two_dimensions_are_one_slice_with_a_spacing_only(tmp_path, suffix):
    flat = SimpleITK.GetImageFromArray(PATIENT[:, :, 0].copy())
    flat.SetSpacing((0.75, 0.5))
    volume = read_volume(write(tmp_path / f"image{suffix}", flat))
    np.testing.assert_array_equal(volume.array, PATIENT[:, :, :1])
    assert volume.geometry.spacing_mm == (0.5, 0.75, 1)
    assert not volume.geometry.is_oriented
    refused(tmp_path / f"image{suffix}", "--orientation paper", orientation="radiological")


NRRD = b"NRRD0004\ntype: uint8\ndimension: 3\nsizes: 2 3 1\nencoding: raw\nendian: little\n"
MHA = b"ObjectType = Image\nNDims = 3\nDimSize = 2 3 1\nElementType = MET_UCHAR\n"
MHA_END = b"ElementDataFile = LOCAL\n"


@pytest.mark.parametrize(
    ("name", "header", "spacing_mm", "is_oriented"),
    [
        ("a.nrrd", NRRD, None, False),
        ("a.nrrd", NRRD + b"spacings: 0.75 0.5 2\n", (0.5, 0.75, 2), False),
        (
            "a.nrrd",
            NRRD + b"space: right-anterior-superior\nspace directions: (3,0,0) (0,4,0) (0,0,5)\n",
            (4, 3, 5),
            True,
        ),
        (
            "a.nrrd",
            NRRD + b"space: scanner-xyz\nspace directions: (3,0,0) (0,4,0) (0,0,5)\n",
            (4, 3, 5),
            False,
        ),
        ("a.mha", MHA, None, False),
        ("a.mha", MHA + b"ElementSpacing = 0.75 0.5 2\n", (0.5, 0.75, 2), False),
        (
            "a.mha",
            MHA + b"ElementSpacing = 0.75 0.5 2\nTransformMatrix = 1 0 0 0 1 0 0 0 1\n",
            (0.5, 0.75, 2),
            True,
        ),
    ],
)
def test_what_a_header_does_not_say_is_not_known(tmp_path, name, header, spacing_mm, is_oriented):
    end = b"\n" if name.endswith("nrrd") else MHA_END
    (tmp_path / name).write_bytes(header + end + bytes(range(6)))
    volume = read_volume(tmp_path / name)
    np.testing.assert_array_equal(volume.array[:, :, 0], [[0, 1], [2, 3], [4, 5]])
    if spacing_mm is None:
        assert volume.geometry is None
    else:
        assert volume.geometry.spacing_mm == spacing_mm
        assert volume.geometry.is_oriented == is_oriented


def test_another_unit_than_mm_is_refused(tmp_path):
    directions = b"space: LPS\nspace directions: (3,0,0) (0,4,0) (0,0,5)\n"
    for unit in (b"um", b"mm"):
        line = b'space units: "' + unit + b'" "mm" "mm"\n'
        (tmp_path / "a.nrrd").write_bytes(NRRD + directions + line + b"\n" + bytes(6))
        if unit == b"mm":
            assert read_volume(tmp_path / "a.nrrd").geometry.spacing_mm == (4, 3, 5)
        else:
            refused(tmp_path / "a.nrrd", "not mm (um)")


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_vectors_and_four_dimensions_are_refused(tmp_path, suffix):
    path = tmp_path / f"image{suffix}"
    refused(write(path, SimpleITK.Compose([image(), image()])), "vector")
    refused(write(path, SimpleITK.JoinSeries([image(), image()])), "4 dimensions")
    refused(write(path, image(np.where(PATIENT > 3, np.nan, 1.0))), "NaN")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("is_compressed", [False, True])
def test_a_truncated_file_is_refused(tmp_path, capfd, suffix, is_compressed):
    path = write(tmp_path / f"image{suffix}", image(np.tile(PATIENT, (3, 3, 3))), is_compressed)
    capfd.readouterr()
    (data,) = [each for each in tmp_path.iterdir() if each != path] or [path]
    content = data.read_bytes()
    for end in {*range(0, len(content), len(content) // 20), len(content) - 1}:
        data.write_bytes(content[:end])
        refused(path)
    if data != path:
        data.unlink()
        refused(path, "not in one file beside it")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_damage_in_compressed_voxels_is_refused(tmp_path, suffix):
    path = write(tmp_path / f"image{suffix}", image(np.tile(PATIENT, (3, 3, 3))), True)
    (data,) = [each for each in tmp_path.iterdir() if each != path] or [path]
    content = data.read_bytes()
    for back in (1, 9, 40, 80):
        data.write_bytes(
            content[:-back] + bytes([content[-back] ^ 16]) + content[len(content) - back + 1 :]
        )
        refused(path)


@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
def test_the_identity_changes_with_the_data_file(tmp_path, suffix):
    path = write(tmp_path / f"image{suffix}", image())
    before = identify(path)
    write(path, image(PATIENT + np.int16(1)))
    assert identify(path)["sha256"] != before["sha256"]


@pytest.mark.parametrize("name", ["/etc/hostname", "../secret.raw", "LIST", "image%03d.raw 1 5 1"])
@pytest.mark.parametrize("suffix", [".nhdr", ".mhd"])
def test_data_elsewhere_are_not_read(tmp_path, suffix, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "secret.raw").write_bytes(bytes(6))
    header = NRRD + b"data file: %b\n" if suffix == ".nhdr" else MHA + b"ElementDataFile = %b\n"
    (folder / f"image{suffix}").write_bytes(header % name.encode())
    refused(folder / f"image{suffix}", "beside it")


def test_more_voxels_than_the_limit_are_refused(tmp_path, monkeypatch):
    path = tmp_path / "a.nrrd"
    path.write_bytes(NRRD.replace(b"2 3 1", b"90000 90000 9") + b"\n" + bytes(6))
    refused(path, "at most")
    bomb = write(tmp_path / "bomb.mha", image(np.zeros((100, 100, 100), np.uint8)), True)
    content = bomb.read_bytes().replace(b"DimSize = 100 100 100", b"DimSize = 10 10 10   ")
    bomb.write_bytes(content)
    refused(bomb)


def test_without_the_extra_the_message_names_it(tmp_path, monkeypatch):
    path = write(tmp_path / "a.nrrd", image())
    monkeypatch.setitem(sys.modules, "SimpleITK", None)
    refused(path, 'pip install ".[itk]"')
