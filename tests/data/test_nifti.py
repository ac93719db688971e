import gzip
import itertools

import nibabel as nib
import numpy as np
import pytest
from conftest import save_nifti
from hypothesis import given
from hypothesis import strategies as st
from patient import ALL_ORIENTATIONS, PATIENT, PATIENT_AFFINE, follow_remedy, nifti_of, stored_as

from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.nifti import read_nifti, write_nifti
from sam_lungs.data.readers import read_volume
from sam_lungs.data.volume import Geometry
from sam_lungs.utils.errors import InputError

FIELDS = (
    *("pixdim", "xyzt_units", "qform_code", "sform_code", "srow_x", "srow_y", "srow_z"),
    *("quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z"),
)
AFFINE = np.array([[-0.7, 0, 0, 163.3], [0, -0.8, 0, 171.1], [0, 0, 2.5, -412.7], [0, 0, 0, 1]])
TURN = np.eye(4)
TURN[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]


def sheared(millimetres: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[1, 2] = millimetres
    return affine


def moved(millimetres: float) -> np.ndarray:
    affine = AFFINE.copy()
    affine[:3, 3] += millimetres
    return affine


# Headers as they are found, and whether ITK opens them.
GEOMETRIES = {
    "both forms": {"sform": (AFFINE, 1), "qform": (AFFINE, 1)},
    "coregistered": {"sform": (TURN @ AFFINE, 2), "qform": (AFFINE, 1)},
    "MNI": {"sform": (moved(50), 4), "qform": (AFFINE, 1)},
    "template, only in newer versions": {"sform": (moved(50), 5), "qform": (AFFINE, 1)},
    "a code of the future": {"sform": (moved(50), 4), "qform": (AFFINE, 1), "sform_code": 9},
    "sform tilted by a hair": {"sform": (sheared(0.02), 1), "qform": (AFFINE, 1)},
    "gantry tilt": {"sform": (sheared(4), 1), "qform": (AFFINE, 1)},
    "gantry tilt, sform alone": {"sform": (sheared(4), 1)},
    "sform alone": {"sform": (AFFINE, 1)},
    "qform alone": {"qform": (AFFINE, 1)},
    "left-handed": {"qform": (np.diag([-1, 1, 1, 1]) @ AFFINE, 1)},
    "oblique": {"qform": (TURN @ AFFINE, 1)},
    "micrometres": {"sform": (AFFINE, 1), "qform": (AFFINE, 1), "xyzt_units": 3},
    "metres": {"sform": (AFFINE, 1), "qform": (AFFINE, 1), "xyzt_units": 1},
    "seconds": {"sform": (AFFINE, 1), "xyzt_units": 10},
    "no units": {"sform": (AFFINE, 1), "xyzt_units": 0},
    "no code": {"pixdim": [1, 0.7, 0.8, 2.5, 0, 0, 0, 0]},
    "zero sform": {"sform": (np.zeros((4, 4)), 1), "qform": (AFFINE, 1)},
    "NaN sform": {"sform": (np.full((4, 4), np.nan), 1), "qform": (AFFINE, 1)},
    "zero pixdim": {"sform": (AFFINE, 1), "qform": (AFFINE, 1), "pixdim": [1, 0, 0, 0] + [0] * 4},
    "qfac of 0": {"qform": (AFFINE, 1), "pixdim": [0, 0.7, 0.8, 2.5, 0, 0, 0, 0]},
    "quaternion past 1": {
        "qform": (np.diag([-1, -1, 1, 1]) @ abs(AFFINE), 1),
        "quatern_d": 1.0000004,
    },
}


def mask_of(image, tmp_path, orientation="paper"):
    """Read a NIfTI file through an array, and write a mask back; return the two headers."""
    write_numpy(read_nifti(image, orientation), tmp_path / "image.npy")
    volume = read_volume(tmp_path / "image.npy")
    write_nifti(volume.array % 2, volume.geometry, tmp_path / "mask.nii.gz")
    with gzip.open(tmp_path / "mask.nii.gz") as mask:
        contents = image.read_bytes(), mask.read()
    kinds = [
        nib.Nifti2Header if b"n+2" in content[:12] else nib.Nifti1Header for content in contents
    ]
    return [
        kind(content[: kind.sizeof_hdr], check=False)
        for kind, content in zip(kinds, contents, strict=True)
    ]


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("endianness", "<>")
@pytest.mark.parametrize("name", GEOMETRIES)
def test_a_mask_has_the_geometry_of_its_image_bit_by_bit(tmp_path, name, version, endianness):
    image = nifti_of(tmp_path / "image.nii", version, endianness, **GEOMETRIES[name])
    original, written = mask_of(image, tmp_path)
    assert type(written) is type(original)
    for field in FIELDS:
        np.testing.assert_array_equal(written[field], original[field])


@given(st.data(), st.sampled_from(FIELDS), st.integers(0, 2**64 - 1))
def test_a_mask_has_any_field_of_a_header_that_can_be_read(tmp_path_factory, data, field, bits):
    folder = tmp_path_factory.mktemp("any")
    image = nifti_of(folder / "image.nii", **GEOMETRIES["both forms"])
    header = nib.Nifti1Header(image.read_bytes()[:348], check=False)
    raw = np.frombuffer(bits.to_bytes(8), header[field].dtype)[0]
    header[field][data.draw(st.integers(0, 2)) if header[field].ndim else ()] = raw
    image.write_bytes(header.binaryblock + image.read_bytes()[348:])
    volume = read_nifti(image)
    if volume.geometry is not None:
        write_nifti(volume.array, volume.geometry, folder / "mask.nii")
        written = nib.Nifti1Header((folder / "mask.nii").read_bytes()[:348], check=False)
        for name in FIELDS:
            np.testing.assert_array_equal(written[name], header[name])


@pytest.mark.parametrize("name", GEOMETRIES)
@pytest.mark.parametrize("orientation", ["paper", "radiological"])
def test_itk_sees_a_mask_where_it_sees_its_image(tmp_path, name, orientation):
    itk = pytest.importorskip("SimpleITK")
    itk.ProcessObject.SetGlobalWarningDisplay(False)
    if orientation == "radiological" and name == "no code":
        return
    image = nifti_of(tmp_path / "image.nii", **GEOMETRIES[name])
    mask_of(image, tmp_path, orientation)
    try:
        opened = itk.ReadImage(str(image))
    except RuntimeError:
        assert name == "gantry tilt, sform alone"
        return
    mask = itk.ReadImage(str(tmp_path / "mask.nii.gz"))
    for voxel in itertools.product((0, 2), (0, 3), (0, 4)):
        there, here = (file.TransformIndexToPhysicalPoint(voxel) for file in (opened, mask))
        np.testing.assert_array_equal(here, there)  # NaN too
        assert mask[voxel] == opened[voxel] % 2


@pytest.mark.parametrize(
    ("shape", "codes"), [((3, 4, 5), "PSL"), ((3, 4, 1), "LPS"), ((3, 1, 5), "RAS")]
)
def test_itk_sees_a_mask_of_a_volume_that_was_no_nifti_file_at_its_affine(tmp_path, shape, codes):
    itk = pytest.importorskip("SimpleITK")
    affine = TURN @ stored_as(codes).affine
    array = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    geometry = Geometry(affine, shape, np.array([[0, 1], [1, 1], [2, 1]]))
    write_nifti(array, geometry, tmp_path / "mask.nii.gz")
    header = nib.load(tmp_path / "mask.nii.gz").header
    assert (header["sform_code"], header["qform_code"]) == (1, 1)
    assert header.get_xyzt_units() == ("mm", "unknown")
    mask = itk.ReadImage(str(tmp_path / "mask.nii.gz"))
    for voxel in itertools.product(*[(0, length - 1) for length in shape]):
        place_mm = nib.affines.apply_affine(affine, voxel) * [-1, -1, 1]  # ITK's is LPS
        np.testing.assert_allclose(
            mask.TransformIndexToPhysicalPoint([int(i) for i in voxel]), place_mm, atol=1e-4
        )
        assert mask[[int(i) for i in voxel]] == array[voxel]


def test_a_mask_of_a_picture_has_its_spacing_and_no_orientation(tmp_path):
    geometry = Geometry(
        np.diag([0.3, 0.4, 2, 1]), (3, 4, 5), np.array([[1, 1], [0, 1], [2, 1]]), is_oriented=False
    )
    assert geometry.spacing_mm == (0.4, 0.3, 2)
    assert geometry.orientation is None
    write_nifti(np.ones((4, 3, 5)), geometry, tmp_path / "mask.nii.gz")
    header = nib.load(tmp_path / "mask.nii.gz").header
    assert (header["sform_code"], header["qform_code"]) == (0, 0)
    np.testing.assert_allclose(header.get_zooms(), (0.3, 0.4, 2))
    again = read_nifti(tmp_path / "mask.nii.gz").geometry
    np.testing.assert_allclose(again.affine, geometry.affine)
    assert not again.is_oriented


@pytest.mark.parametrize(
    ("name", "affine"),
    [
        *[(name, AFFINE) for name in ("both forms", "sform alone", "qform alone", "no units")],
        *[(name, AFFINE) for name in ("zero sform", "NaN sform", "zero pixdim", "qfac of 0")],
        ("seconds", AFFINE),
        ("MNI", moved(50)),
        ("a code of the future", moved(50)),
        ("gantry tilt", sheared(4)),
        ("micrometres", np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE),
        ("metres", np.diag([1e3, 1e3, 1e3, 1]) @ AFFINE),
        ("left-handed", np.diag([-1, 1, 1, 1]) @ AFFINE),
        ("oblique", TURN @ AFFINE),
        ("quaternion past 1", np.diag([-1, -1, 1, 1]) @ abs(AFFINE)),
        ("no code", np.diag([0.7, 0.8, 2.5, 1])),
    ],
)
def test_the_affine_is_in_millimetres_from_the_form_that_is_usable(tmp_path, name, affine):
    geometry = read_nifti(nifti_of(tmp_path / "image.nii", **GEOMETRIES[name])).geometry
    np.testing.assert_allclose(geometry.affine, affine, rtol=1e-5, atol=1e-4)
    assert geometry.is_oriented == (name != "no code")


@given(
    st.tuples(*[st.floats(-1, 1)] * 4).filter(lambda wxyz: np.linalg.norm(wxyz) > 0.1),
    st.sampled_from([1, 2]),
)
def test_a_qform_alone_gives_its_affine(tmp_path_factory, wxyz, version):
    rotation = nib.affines.from_matvec(nib.quaternions.quat2mat(wxyz))
    image = nifti_of(
        tmp_path_factory.mktemp("qform") / "image.nii", version, qform=(rotation @ AFFINE, 1)
    )
    affine = read_nifti(image).geometry.affine
    # Single precision loses half its digits where w is near 0.
    np.testing.assert_allclose(affine, rotation @ AFFINE, rtol=1e-3, atol=5e-3)


@pytest.mark.parametrize(
    "fields",
    [
        {"sform": (np.zeros((4, 4)), 1)},
        {"qform": (AFFINE, 1), "pixdim": [1, 0.7, 0, 2.5, 0, 0, 0, 0]},
        {"qform": (AFFINE, 1), "quatern_b": np.nan},
        {"pixdim": [1, 0.7, 0, 2.5, 0, 0, 0, 0]},
        {"pixdim": [1, 0.7, np.inf, 2.5, 0, 0, 0, 0]},
    ],
)
def test_no_spacing_is_guessed_from_an_unusable_header(tmp_path, fields):
    image = nifti_of(tmp_path / "image.nii", **fields)
    assert read_nifti(image).geometry is None


@pytest.mark.parametrize("fields", [{"sform": (np.zeros((4, 4)), 1)}, GEOMETRIES["no code"]])
def test_radiological_needs_an_orientation(tmp_path, fields):
    image = nifti_of(tmp_path / "image.nii", **fields)
    with pytest.raises(InputError, match="use --orientation paper"):
        read_nifti(image, "radiological")
    assert read_nifti(image, "paper").array.shape == (4, 3, 5)


@pytest.mark.parametrize("name", ["image.nii", "image.nii.gz", "IMAGE.NII", "Image.Nii.Gz"])
@pytest.mark.parametrize("after", [b"", bytes(99), b"\r\n--boundary--\r\n", b"\x1f"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_the_first_bytes_say_whether_a_file_is_compressed(tmp_path, name, after, pack):
    content = nifti_of(tmp_path / "a.nii", **GEOMETRIES["both forms"]).read_bytes()
    (tmp_path / name).write_bytes(pack(content) + after)
    np.testing.assert_array_equal(read_volume(tmp_path / name).array, PATIENT.swapaxes(0, 1))


@pytest.mark.parametrize("size", [1, 353, 400])
def test_a_gzip_file_in_small_members_and_truncated_anywhere(tmp_path, size):
    content = nifti_of(tmp_path / "a.nii", **GEOMETRIES["both forms"]).read_bytes()
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    packed = b"".join(map(gzip.compress, pieces))
    path = tmp_path / "image.nii.gz"
    path.write_bytes(packed)
    np.testing.assert_array_equal(read_nifti(path).array, PATIENT.swapaxes(0, 1))
    for length in range(0, len(packed), 97):
        path.write_bytes(packed[:length])
        with pytest.raises(InputError):
            read_nifti(path)


@pytest.mark.parametrize("slope", [1, 2])
@pytest.mark.parametrize("intercept", [np.nan, np.inf])
def test_a_slope_without_an_intercept_is_refused_with_a_command_that_helps(
    tmp_path, monkeypatch, slope, intercept
):
    pytest.importorskip("SimpleITK")
    path = nifti_of(tmp_path / "image.nii", scl_slope=slope, scl_inter=intercept)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(
        read_volume(follow_remedy(path)).array, PATIENT.swapaxes(0, 1) * slope
    )


def test_an_intercept_without_a_slope_is_not_used(tmp_path):
    path = nifti_of(tmp_path / "image.nii", scl_slope=0, scl_inter=np.nan)
    np.testing.assert_array_equal(read_nifti(path).array, PATIENT.swapaxes(0, 1))


@pytest.mark.parametrize(
    ("shape", "is_known"),
    [
        *[((3, 4), True), ((3, 4, 1), True), ((3, 4, 1, 1, 1), True)],
        *[((3, 4, 5), True), ((3, 4, 5, 1, 1), True)],
        *[((1, 3, 4, 5), False), ((1, 1, 3, 4, 5), False), ((1, 3, 4, 5, 1), False)],
    ],
)
def test_two_dimensions_are_one_slice_and_axes_of_length_1_are_dropped(tmp_path, shape, is_known):
    voxels = np.arange(np.prod(shape), dtype=np.int16).reshape(shape)
    nib.save(nib.Nifti1Image(voxels, AFFINE), tmp_path / "image.nii")
    volume = read_nifti(tmp_path / "image.nii")
    expected = voxels.reshape(3, 4, -1).swapaxes(0, 1)
    np.testing.assert_array_equal(volume.array, expected)
    # With an axis of length 1 first, the affine is not that of the three that follow.
    assert (volume.geometry is not None) == is_known
    if is_known:
        np.testing.assert_allclose(volume.geometry.affine, AFFINE, rtol=1e-6)
        write_nifti(volume.array, volume.geometry, tmp_path / "mask.nii")
        np.testing.assert_array_equal(read_nifti(tmp_path / "mask.nii").array, expected)


def test_a_slice_without_a_thickness_has_a_spacing(tmp_path):
    """As the header of a 2-D file is written by programs that fill it with zeros."""
    image = nib.Nifti1Image(PATIENT[:, :, 0], None)
    image.header["pixdim"] = [1, 0.7, 0.8, 0, 0, 0, 0, 0]
    nib.save(image, tmp_path / "image.nii")
    geometry = read_nifti(tmp_path / "image.nii").geometry
    np.testing.assert_allclose(geometry.spacing_mm[:2], (0.8, 0.7))


def test_a_2d_file_of_itk_is_read_and_its_mask_lies_on_it(tmp_path):
    itk = pytest.importorskip("SimpleITK")
    picture = itk.GetImageFromArray(PATIENT[:, :, 0].T)
    picture.SetSpacing((0.7, 0.8))
    picture.SetOrigin((12, 13))
    itk.WriteImage(picture, str(tmp_path / "image.nii"))
    volume = read_nifti(tmp_path / "image.nii")
    np.testing.assert_allclose(volume.geometry.spacing_mm[:2], (0.8, 0.7))
    write_nifti(volume.array % 2, volume.geometry, tmp_path / "mask.nii")
    mask = itk.ReadImage(str(tmp_path / "mask.nii"))
    for corner in ((0, 0), (2, 3)):
        np.testing.assert_allclose(
            mask.TransformIndexToPhysicalPoint((*corner, 0))[:2],
            picture.TransformIndexToPhysicalPoint(corner),
            atol=1e-5,
        )


COLOURS = np.zeros(PATIENT.shape, [("R", "u1"), ("G", "u1"), ("B", "u1")])
COLOURS["R"] = PATIENT + 7


@pytest.mark.parametrize(
    ("voxels", "expected"),
    [
        (PATIENT[:, :, None], PATIENT),
        (np.stack([PATIENT, PATIENT + 1], axis=3), PATIENT),
        (np.stack([PATIENT, PATIENT + 1], axis=3)[:, :, :, None], PATIENT),
        (PATIENT + 1j, PATIENT),
        (COLOURS, PATIENT + 7),
    ],
    ids=["slices fourth", "two volumes", "a vector", "complex", "colours"],
)
@pytest.mark.parametrize("suffix", [".nii.gz", ".npy", ".npz"])
def test_what_is_not_three_dimensions_of_numbers_is_refused_with_a_command_that_helps(
    tmp_path, monkeypatch, voxels, expected, suffix
):
    path = tmp_path / f"image{suffix}"
    if suffix == ".nii.gz":
        nib.save(nib.Nifti1Image(voxels, AFFINE), path)
        expected = expected.swapaxes(0, 1)
    elif suffix == ".npy":
        np.save(path, voxels)
    else:
        np.savez(path, voxels)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read_volume(follow_remedy(path)).array, expected)


@pytest.mark.parametrize("endianness", "<>")
@pytest.mark.parametrize(
    "name",
    # nibabel itself does not read these two.
    [name for name in GEOMETRIES if name not in ("quaternion past 1", "a code of the future")],
)
def test_the_command_that_helps_keeps_the_geometry(tmp_path, monkeypatch, name, endianness):
    """The same voxels with their slices along the fourth axis."""
    original = nifti_of(tmp_path / "original.nii", 1, endianness, **GEOMETRIES[name])
    content = bytearray(original.read_bytes())
    content[40:56] = np.array([4, 3, 4, 1, 5, 1, 1, 1], f"{endianness}i2").tobytes()
    (tmp_path / "image.nii").write_bytes(content)
    monkeypatch.chdir(tmp_path)
    volume, expected = read_volume(follow_remedy(tmp_path / "image.nii")), read_nifti(original)
    np.testing.assert_array_equal(volume.array, expected.array)
    assert volume.geometry.is_oriented == expected.geometry.is_oriented
    np.testing.assert_allclose(volume.geometry.affine, expected.geometry.affine, atol=1e-4)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz", ".npy", ".npz"])
def test_float64_that_is_too_large_can_be_saved_as_float32(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"image{suffix}"
    voxels = PATIENT.repeat(20, axis=0) / 8
    if suffix.startswith(".nii"):
        nib.save(nib.Nifti1Image(voxels, AFFINE), path)
        expected = voxels.swapaxes(0, 1)
    else:
        np.save(path, voxels) if suffix == ".npy" else np.savez(path, voxels)
        expected = voxels
    monkeypatch.setattr("sam_lungs.data.guard.MAX_VOLUME_BYTES", voxels.nbytes * 2 // 3)
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(read_volume(follow_remedy(path)).array, expected)


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
