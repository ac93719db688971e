import json
import os
import shutil
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from highdicom.legacy import LegacyConvertedEnhancedCTImage
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.pixels.decoders.base import Decoder
from pydicom.tag import Tag
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)
from scanner import AXIAL, OBLIQUE, VOXELS, change, image, save, scan

from sam_lungs.data import guard
from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.dicom_files import TAGS
from sam_lungs.data.dicom_grid import Plane, stack
from sam_lungs.data.nifti import read_nifti, write_nifti
from sam_lungs.data.readers import identify, read_volume
from sam_lungs.data.volume import smallest_dtype
from sam_lungs.utils.errors import InputError


def refused(path, *words, **options):
    """Assert one line with these words; return it."""
    with pytest.raises(InputError) as error:
        read_volume(path, **options)
    message = str(error.value)
    assert "\n" not in message
    for word in words:
        assert word in message, message
    return message


@pytest.mark.parametrize("orientation", ["paper", "radiological"])
@pytest.mark.parametrize("directions", [AXIAL, OBLIQUE, ((0, 1, 0), (0, 0, -1))])
def test_a_series_is_read_as_the_nifti_file_that_itk_writes_of_it(
    tmp_path, directions, orientation
):
    folder = save(tmp_path / "scan", scan(directions=directions))
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(folder)))
    SimpleITK.WriteImage(reader.Execute(), tmp_path / "scan.nii.gz")
    expected = read_nifti(tmp_path / "scan.nii.gz", orientation)
    volume = read_volume(folder, orientation=orientation)
    np.testing.assert_array_equal(volume.array, expected.array)
    assert volume.array.dtype == expected.array.dtype
    np.testing.assert_allclose(
        volume.geometry.array_affine, expected.geometry.array_affine, atol=1e-4
    )
    assert (volume.orientation, volume.is_picture, volume.is_placed) == (orientation, False, False)


def test_rows_and_columns_are_those_of_the_images_and_slices_go_along_the_normal(tmp_path):
    volume = read_volume(save(tmp_path, scan()))
    np.testing.assert_array_equal(volume.array, VOXELS)
    assert volume.geometry.spacing_mm == (0.5, 0.75, 2)
    assert volume.geometry.orientation == "PLS"
    write_nifti(volume.array, volume.geometry, tmp_path / "again.nii")
    again = read_nifti(tmp_path / "again.nii")
    np.testing.assert_array_equal(again.array, VOXELS)
    np.testing.assert_allclose(again.geometry.array_affine, volume.geometry.array_affine)


def test_the_real_series_gives_the_voxels_and_the_affine_of_its_nifti_file(real_data):
    for orientation in ("paper", "radiological"):
        volume = read_volume(real_data / "chest_64" / "dicom", orientation=orientation)
        nifti = read_nifti(real_data / "chest_64" / "ct.nii.gz", orientation)
        np.testing.assert_array_equal(volume.array, nifti.array)
        assert volume.array.dtype == nifti.array.dtype
        # The series stores positions with three decimals.
        affines = [each.geometry.array_affine for each in (volume, nifti)]
        np.testing.assert_allclose(affines[0][:3, :3], affines[1][:3, :3], atol=1e-4)
        np.testing.assert_allclose(affines[0], affines[1], atol=5e-4)


def test_the_real_jpeg_2000_series_without_uids_has_20_slices_2_mm_apart(real_data):
    folder = real_data / "dicom_jpeg2000" / "dicom"
    volume = read_volume(folder)
    assert volume.array.shape == (512, 512, 20)
    assert volume.geometry.spacing_mm == (0.9765625, 0.9765625, 2)
    assert volume.geometry.orientation == "PLS"
    assert (volume.array.dtype, volume.array.min(), volume.array.max()) == (np.int16, -1024, 1839)
    assert volume.identity == identify(folder)


def test_the_real_tilted_series_is_refused(real_data):
    refused(real_data / "dicom_tilted", "gantry tilt", "3.63 mm")


def test_every_image_is_scaled_by_its_own_slope_and_intercept(tmp_path):
    images = scan(np.arange(60, dtype=np.uint16).reshape(3, 4, 5))
    for index, each in enumerate(images):
        each.RescaleSlope, each.RescaleIntercept = index + 1, -1024 - index
    volume = read_volume(save(tmp_path, images))
    slices = np.arange(5)
    expected = np.arange(60).reshape(3, 4, 5) * (slices + 1) - 1024 - slices
    np.testing.assert_array_equal(volume.array, expected)
    assert volume.array.dtype == np.int16
    change(tmp_path, lambda dataset: setattr(dataset, "RescaleSlope", 0.5))
    assert read_volume(tmp_path).array.dtype == np.float32


def test_a_missing_slope_or_intercept_is_1_or_0(tmp_path):
    images = scan()
    del images[0].RescaleSlope
    images[1].RescaleIntercept = images[1].RescaleSlope = None
    np.testing.assert_array_equal(read_volume(save(tmp_path, images)).array, VOXELS)


@pytest.mark.parametrize("bits", [8, 12, 16, 32])
@pytest.mark.parametrize("is_signed", [False, True])
def test_every_depth_is_read_exactly(tmp_path, bits, is_signed):
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if is_signed else (0, (1 << bits) - 1)
    allocated = max(bits, 16) if bits != 8 else 8
    dtype = f"{'i' if is_signed else 'u'}{allocated // 8}"
    for values in ([low, 0, 1, high], [1, 2, 3, high // 2]):
        pixels = np.array([values], dtype)
        dataset = image(pixels)
        dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = allocated, bits, bits - 1
        array = read_volume(save(tmp_path, [dataset])).array[:, :, 0]
        expected = pixels.astype(smallest_dtype([pixels]))
        np.testing.assert_array_equal(array, expected)
        assert array.dtype == expected.dtype


def test_padding_is_left_as_it_is(tmp_path):
    images = scan(VOXELS - np.int16(2000))
    for each in images:
        each.PixelPaddingValue = -2007
    np.testing.assert_array_equal(read_volume(save(tmp_path, images)).array, VOXELS - 2000)


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, JPEG2000Lossless, RLELossless]
)
def test_every_transfer_syntax_gives_the_same_voxels(tmp_path, syntax):
    array = np.tile(VOXELS, (12, 12, 1))
    images = scan(array)
    for each in images:
        if syntax.is_encapsulated:
            each.compress(syntax, generate_instance_uid=False)
        else:
            if syntax == ExplicitVRBigEndian:
                each.PixelData = np.frombuffer(each.PixelData, "<i2").astype(">i2").tobytes()
            each.file_meta.TransferSyntaxUID = syntax
    np.testing.assert_array_equal(read_volume(save(tmp_path, images)).array, array)


def test_files_without_preamble_and_without_transfer_syntax_are_read(tmp_path):
    for index, each in enumerate(scan()):
        del each.file_meta
        each.save_as(tmp_path / str(index), implicit_vr=index % 2 == 0, little_endian=True)
    np.testing.assert_array_equal(read_volume(tmp_path).array, VOXELS)


def test_files_are_recognised_by_their_content_in_all_subfolders(tmp_path):
    save(tmp_path / "a" / "b", scan()[:2])
    save(tmp_path / "c", scan()[2:])
    (tmp_path / "c" / "0.dcm").rename(tmp_path / "c" / "IM_0001")
    before = identify(tmp_path)
    (tmp_path / "readme.txt").write_text("not an image")
    (tmp_path / "text.dcm").write_text("not an image either")
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "link.dcm").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe.dcm")
    volume = read_volume(tmp_path)
    np.testing.assert_array_equal(volume.array, VOXELS)
    assert volume.identity == identify(tmp_path) == before


def test_the_current_folder_has_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(save(tmp_path / "scan", scan()))
    assert read_volume(Path(".")).source_name == "scan"


def test_objects_without_an_image_are_ignored(tmp_path):
    save(tmp_path, scan())
    report = image(VOXELS[:, :, 0], series="1.9")
    for name in ("Rows", "Columns", "PixelData"):
        delattr(report, name)
    report.Modality = "SR"
    report.save_as(tmp_path / "DICOMDIR", enforce_file_format=True)
    np.testing.assert_array_equal(read_volume(tmp_path).array, VOXELS)
    shutil.rmtree(tmp_path)
    save(tmp_path, [report])
    refused(tmp_path, "no DICOM images")


def test_a_folder_without_dicom_files_is_refused(tmp_path):
    refused(tmp_path, "without DICOM files")
    with pytest.raises(InputError, match="without DICOM files"):
        identify(tmp_path)


def test_the_identity_changes_with_any_file_and_not_with_their_names(tmp_path):
    before = identify(save(tmp_path, scan()))
    assert read_volume(tmp_path).identity == before
    (tmp_path / "0.dcm").rename(tmp_path / "moved.dcm")
    assert identify(tmp_path) == before
    change(tmp_path, lambda dataset: setattr(dataset, "RescaleIntercept", 1))
    assert identify(tmp_path) != before


def test_one_of_several_series_is_chosen_by_its_uid(tmp_path):
    other = scan(VOXELS + 1, series="1.2.4")
    for each in other:
        each.SeriesDescription = "Lung\n 1.0\x1b[31m"
    save(tmp_path / "a", scan())
    save(tmp_path / "b", other[:3])
    listed = refused(tmp_path, "--series", "1.2.3 (5 images)", "1.2.4 (Lung 1.0[31m, 3 images)")
    assert "\x1b" not in listed
    np.testing.assert_array_equal(read_volume(tmp_path, series="1.2.3").array, VOXELS)
    np.testing.assert_array_equal(read_volume(tmp_path, series="1.2.4").array, VOXELS[:, :, :3] + 1)
    refused(tmp_path, "no series 1.2", "1.2.3", series="1.2")


def localizer(series):
    scout = image(np.zeros((9, 9), np.int16), directions=((0, 1, 0), (0, 0, -1)), series=series)
    scout.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    return scout


def test_a_localizer_is_ignored_in_its_own_series_and_refused_in_another(tmp_path):
    save(tmp_path / "scout", [localizer("1.2.4")])
    save(tmp_path / "scan", scan())
    np.testing.assert_array_equal(read_volume(tmp_path).array, VOXELS)
    refused(tmp_path / "scout", "localizer")
    save(tmp_path / "scout", [localizer("1.2.3")])
    refused(tmp_path, "0.dcm", "localizer")


def missing(images):
    del images[2]


def two_missing(images):
    del images[1:3]


def twice(images):
    images.append(images[2])


def resampled(images):
    images[2].ImagePositionPatient[2] += 0.5


def shorter(images):
    images[2].PixelSpacing = [0.5, 0.8]


def smaller(images):
    images[2].Rows, images[2].PixelData = 2, images[2].PixelData[:16]


def turned(images):
    images[2].ImageOrientationPatient = [0, 1, 0, 1, 0, 0]


def phases(images):
    images += scan(VOXELS + 1)


def coloured(images):
    images[2].SamplesPerPixel, images[2].PhotometricInterpretation = 3, "RGB"


def paletted(images):
    images[2].PhotometricInterpretation = "PALETTE COLOR"


def unplaced(images):
    del images[2].ImagePositionPatient


def unspaced(images):
    images[2].PixelSpacing = [0, 0.75]


def moved(images):
    images[2].ImagePositionPatient[0] += 0.1


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (missing, ("slices are missing (1)", "2.dcm", "1.dcm")),
        (two_missing, ("slices are missing (2)",)),
        (twice, ("same slice twice", "0.dcm", "3.dcm")),
        (resampled, ("1.500 to 2.500 mm apart",)),
        (shorter, ("2.dcm", "pixel spacing")),
        (smaller, ("2.dcm", "(2, 4) pixels")),
        (turned, ("2.dcm", "another orientation")),
        (phases, ("2 images at each position",)),
        (coloured, ("2.dcm", "colour")),
        (paletted, ("2.dcm", "colour")),
        (unplaced, ("2.dcm", "without a position")),
        (unspaced, ("2.dcm", "spacing is damaged")),
        (moved, ("0.10 mm", "tilt")),
    ],
)
def test_a_series_that_is_no_straight_stack_with_equal_gaps_is_refused(tmp_path, damage, words):
    images = scan()
    damage(images)
    refused(save(tmp_path, images), *words)


@settings(max_examples=100)
@given(
    st.integers(1, 50),
    st.floats(0.3, 10),
    st.integers(2, 4),
    st.randoms(use_true_random=False),
)
def test_positions_that_are_rounded_are_accepted_in_any_order(count, gap_mm, decimals, random):
    normal = np.cross(*np.array(OBLIQUE))
    positions = np.round(
        np.array([-9, 8, 30]) + np.outer(np.arange(count) * gap_mm, normal), decimals
    )
    shuffled = random.sample(range(count), count)
    planes = [plane(positions[index]) for index in shuffled]
    order, affine = stack(Path("scan"), planes)
    assert [shuffled[index] for index in order] == list(range(count))
    corners = nib.affines.apply_affine(affine, [(0, 0, index) for index in range(count)])
    np.testing.assert_allclose(corners * (-1, -1, 1), positions, atol=0.02)
    if count > 3:
        planes.remove(next(each for each in planes if (each.position == positions[1]).all()))
        with pytest.raises(InputError, match=r"missing \(1\)"):
            stack(Path("scan"), planes)


def plane(position):
    return Plane(Path("0.dcm"), (3, 4), position, np.array(OBLIQUE), (0.7, 0.7), None, False, "")


def test_a_single_slice_is_as_thick_as_it_says_or_1_mm(tmp_path):
    one = scan(VOXELS[:, :, :1])
    assert read_volume(save(tmp_path, one)).geometry.spacing_mm == (0.5, 0.75, 2)
    assert read_volume(tmp_path / "0.dcm").array.shape == (3, 4, 1)
    one[0].SliceThickness = None
    assert read_volume(save(tmp_path, one)).geometry.spacing_mm == (0.5, 0.75, 1)


def enhanced():
    images = scan()
    for index, each in enumerate(images):
        each.InstanceNumber, each.RescaleIntercept = index + 1, 10 * index
    return LegacyConvertedEnhancedCTImage(images[::-1], "1.2.5", 1, "1.2.5.1", 1)


def test_an_enhanced_file_of_several_frames_is_read(tmp_path):
    enhanced().save_as(tmp_path / "scan.dcm", enforce_file_format=True)
    volume = read_volume(tmp_path / "scan.dcm")
    np.testing.assert_array_equal(volume.array, VOXELS + 10 * np.arange(5))
    assert volume.geometry.spacing_mm == (0.5, 0.75, 2)
    assert volume.identity == identify(tmp_path / "scan.dcm")


def test_several_frames_without_positions_are_refused(tmp_path):
    film = image(np.zeros((6, 4), np.int16))
    film.Rows, film.NumberOfFrames = 3, 2
    del film.ImagePositionPatient
    refused(save(tmp_path, [film]), "without a position")
    film.Modality = "DX"
    refused(save(tmp_path, [film]), "2 X-rays")


def x_ray(pixels, **tags):
    dataset = image(pixels)
    del dataset.ImagePositionPatient, dataset.ImageOrientationPatient, dataset.SliceThickness
    del dataset.PixelSpacing
    for name, value in {"Modality": "DX", **tags}.items():
        setattr(dataset, name, value)
    return dataset


def test_an_x_ray_is_a_picture_of_one_slice(tmp_path):
    pixels = np.array([[0, 1, 4000], [7, 8, 9]], np.uint16)
    folder = save(tmp_path, [x_ray(pixels, Modality="CR")])
    for path in (folder, folder / "0.dcm"):
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.array, pixels[:, :, None])
        assert volume.is_picture
        assert volume.geometry is None
    assert read_volume(folder, spacing_mm=(0.2, 0.1)).geometry.spacing_mm == (0.2, 0.1, 1)
    save(folder, [x_ray(pixels), x_ray(pixels)])
    refused(folder, "2 X-rays")


def test_a_negative_x_ray_is_inverted(tmp_path):
    pixels = np.array([[0, 1, 4000], [7, 8, 9]], np.uint16)
    negative = x_ray(pixels, PhotometricInterpretation="MONOCHROME1")
    array = read_volume(save(tmp_path, [negative])).array
    np.testing.assert_array_equal(array[:, :, 0], [[4000, 3999, 0], [3993, 3992, 3991]])
    assert array.dtype == np.int16


@pytest.mark.parametrize("name", ["PixelSpacing", "ImagerPixelSpacing"])
def test_an_x_ray_has_a_spacing_and_no_orientation(tmp_path, name):
    folder = save(tmp_path, [x_ray(np.ones((2, 3), np.uint16), **{name: [0.2, 0.1]})])
    geometry = read_volume(folder).geometry
    assert geometry.spacing_mm == (0.2, 0.1, 1)
    assert not geometry.is_oriented
    assert read_volume(folder, spacing_mm=(0.2, 0.1)).geometry.spacing_mm == (0.2, 0.1, 1)
    refused(folder, "its spacing is 0.2,0.1 mm", spacing_mm=(0.1, 0.2))
    refused(folder, "--orientation paper", orientation="radiological")


SECRETS = ("Doe", "Jane", "4711", "19700102", "20240304", "131517", "Hospital", "Charite")


def identifying(dataset):
    dataset.PatientName, dataset.OtherPatientNames = "Doe^Jane", "Jane"
    dataset.PatientID = dataset.OtherPatientIDs = dataset.AccessionNumber = "4711"
    dataset.StudyID, dataset.PatientComments = "4711", "Jane Doe"
    dataset.PatientBirthDate = "19700102"
    for name in ("Study", "Series", "Acquisition", "Content"):
        setattr(dataset, f"{name}Date", "20240304")
        setattr(dataset, f"{name}Time", "131517")
    dataset.ReferringPhysicianName = dataset.OperatorsName = "Doe^Jane"
    dataset.InstitutionName = dataset.StationName = "Hospital"
    dataset.StudyDescription = dataset.ProtocolName = dataset.RequestingPhysician = "Charite"


def assert_no_secret(text):
    for secret in SECRETS:
        assert secret not in text


def test_no_name_id_or_date_is_written(tmp_path):
    images = scan()
    for each in images:
        identifying(each)
    write_numpy(read_volume(save(tmp_path / "scan", images)), tmp_path / "image.npy")
    for name in ("image.npy", "image.npy.json"):
        assert_no_secret((tmp_path / name).read_bytes().decode("latin-1"))
    assert json.loads((tmp_path / "image.npy.json").read_text())["source"] == "scan"


def test_no_message_says_a_name_an_id_or_a_date(tmp_path, capfd):
    damages = (missing, twice, smaller, coloured, unplaced, unspaced)
    for number, damage in enumerate(damages):
        images = scan()
        for each in images:
            identifying(each)
        damage(images)
        assert_no_secret(refused(save(tmp_path / str(number), images)))
    save(tmp_path / "scan", scan())
    path = change(tmp_path / "scan", identifying)
    content = path.read_bytes()
    for name, value in (("Rows", b"Doe"), ("RescaleSlope", b"Jane"), ("PixelSpacing", b"4711^Doe")):
        tag = Tag(name).group.to_bytes(2, "little") + Tag(name).element.to_bytes(2, "little")
        at = content.index(tag) + 8
        length = int.from_bytes(content[at - 2 : at], "little")
        path.write_bytes(content[:at] + value.ljust(length)[:length] + content[at + length :])
        assert_no_secret(refused(tmp_path / "scan"))
    for end in range(0, len(content), 37):
        path.write_bytes(content[:end])
        assert_no_secret(refused(tmp_path / "scan"))
    assert capfd.readouterr() == ("", "")


def test_tags_of_the_patient_are_never_kept():
    assert not [name for name in TAGS if "Patient" in name and "Image" not in name]


@pytest.mark.parametrize("syntax", [None, JPEG2000Lossless, RLELossless])
def test_a_truncated_file_is_refused(tmp_path, syntax):
    save(tmp_path, scan(np.tile(VOXELS, (12, 12, 1))))
    path = change(tmp_path, lambda dataset: syntax and dataset.compress(syntax))
    content = path.read_bytes()
    for end in range(140, len(content), max(1, len(content) // 25)):
        path.write_bytes(content[:end])
        refused(tmp_path)


def test_more_voxels_than_the_limit_are_refused_before_they_are_decoded(tmp_path, monkeypatch):
    save(tmp_path, scan())
    monkeypatch.setattr(guard, "MAX_VOLUME_BYTES", 3000)
    read_volume(tmp_path)
    for each in tmp_path.iterdir():
        change(tmp_path, lambda dataset: setattr(dataset, "Rows", 30000), each.name)
    monkeypatch.setattr(guard, "MAX_VOLUME_BYTES", 100_000)
    refused(tmp_path, "at most 100000")


def test_a_codestream_larger_than_its_file_says_is_refused(tmp_path):
    images = scan(np.tile(VOXELS, (12, 12, 1)))
    for each in images:
        each.compress(JPEG2000Lossless)
    path = save(tmp_path, images) / "2.dcm"
    content = path.read_bytes()
    at = content.index(b"\xff\x4f\xff\x51") + 8
    for size in ((48, 72), (60_000, 60_000)):
        sizes = b"".join(each.to_bytes(4, "big") for each in size)
        # The size of the image, its offset, and the size of a tile.
        path.write_bytes(content[:at] + sizes + bytes(8) + sizes + content[at + 24 :])
        refused(tmp_path, "2.dcm", f"{size[1]} x {size[0]} pixels")


def test_a_deflated_file_is_refused(tmp_path):
    save(tmp_path, scan())
    change(
        tmp_path,
        lambda dataset: setattr(
            dataset.file_meta, "TransferSyntaxUID", DeflatedExplicitVRLittleEndian
        ),
    )
    refused(tmp_path, "2.dcm", "deflated")


@pytest.mark.parametrize("package", ["pydicom", "openjpeg"])
def test_without_the_extra_the_message_names_it(tmp_path, monkeypatch, package):
    images = scan(np.tile(VOXELS, (12, 12, 1)))
    for each in images:
        each.compress(JPEG2000Lossless)
    save(tmp_path, images)
    if package == "pydicom":
        monkeypatch.setitem(sys.modules, "pydicom", None)
    else:
        monkeypatch.setattr(Decoder, "is_available", property(lambda _: False))
    refused(tmp_path, 'pip install ".[dicom]"')
