import re
from dataclasses import replace
from pathlib import Path

import cv2
import nibabel as nib
import numpy as np
import pytest
from conftest import chest, save_nifti

from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.case import Case, read_case
from sam_lungs.data.case_files import FAULTS, CaseFiles, Reading
from sam_lungs.data.nifti import read_nifti
from sam_lungs.data.windowing import LUNG_WINDOW, Window
from sam_lungs.data.zenodo import PAPER_VOLUMES

IMAGE, MASKS = chest(64, 80, slices=5)
IMAGE = (IMAGE + np.random.default_rng(0).normal(0, 20, IMAGE.shape)).astype(np.int16)
AFFINE = np.diag([-0.7, -0.8, 5, 1])
OUTSIDE = np.add.outer(np.abs(np.arange(64) - 32), np.abs(np.arange(80) - 40)) > 56


def filled(values: np.ndarray, fill: int) -> np.ndarray:
    values = values.astype(np.int16)
    values[OUTSIDE] = fill
    return values


@pytest.fixture
def read(tmp_path):
    """Write an image and masks as NIfTI, and read the case; arrays have the grid of AFFINE."""

    def write(name: str, content: np.ndarray | Path) -> Path:
        if isinstance(content, Path):
            return content
        return save_nifti(tmp_path / name, content, AFFINE)

    def read_files(image=IMAGE, *masks, **reading) -> Case:
        paths = [write(f"m{letter}.nii", m) for letter, m in zip("abc", masks, strict=False)]
        paths = paths or [write("m.nii", MASKS)]
        return read_case(CaseFiles(write("ct.nii", image), tuple(paths), Reading(**reading)))

    return read_files


def names(case: Case) -> list[str]:
    return [finding.name for finding in case.findings]


def refused(case: Case, name: str) -> str:
    """Assert that a case has one finding, a fault of this name; return its message."""
    assert names(case) == [name], case.findings
    (message,) = case.faults
    assert case.warnings == []
    assert "\n" not in message
    return message


def test_a_case_without_faults(tmp_path):
    paths = save_nifti(tmp_path / "chest_1.nii.gz", IMAGE), save_nifti(tmp_path / "m.nii", MASKS)
    case = read_case(CaseFiles(paths[0], paths[1:]))
    assert case.name == "chest_1"
    np.testing.assert_array_equal(case.image.array, IMAGE)
    np.testing.assert_array_equal(case.masks.array, MASKS)
    assert case.masks_identities == [case.masks.identity]
    assert case.window == LUNG_WINDOW
    assert case.findings == case.faults == case.warnings == []
    assert replace(case, files=replace(case.files, given_name="s1")).name == "s1"


def test_slices_of_labels_are_those_with_a_pixel_of_it(read):
    masks = MASKS.copy()
    masks[:, :, 2] = 0
    masks[:, :, 4] = np.where(MASKS[:, :, 4] == 2, 2, 0)
    case = read(IMAGE, masks)
    assert case.slices_of_labels == {1: [1, 3], 2: [1, 3, 4]}
    assert case.lung_slices == [1, 3, 4]


def test_every_fault_is_collected_and_names_its_file(read):
    case = read(IMAGE // 2 + 300, MASKS[:, :, 1:])
    grid, window = case.faults
    assert "ma.nii: masks have shape (64, 80, 4), but " in grid
    assert re.match(r".*ct\.nii: values from .* may or may not be Hounsfield units", window)
    assert names(case) == ["alignment", "window"]
    assert (case.masks, case.window) == (None, None)
    assert case.image is not None


def test_files_that_cannot_be_read_are_none(tmp_path):
    (tmp_path / "broken.nii").touch()
    case = read_case(CaseFiles(tmp_path / "missing.npy", (tmp_path / "broken.nii",)))
    assert (case.image, case.masks, case.window) == (None,) * 3
    assert case.masks_identities == []
    missing, broken = case.faults
    assert missing.startswith(f"{tmp_path / 'missing.npy'}: no such file")
    assert broken.startswith(f"{tmp_path / 'broken.nii'}: not a valid NIfTI file")


WRONG_VALUES = {
    "raw with a fill": filled(IMAGE + 1024, -2000),
    "raw": IMAGE + 1024,
    "12 bits": (IMAGE + 1024).clip(0, 4095).astype(np.uint16),
    "8 bits with a rim": filled((IMAGE.clip(-1400, 100) + 1400) / 1500 * 255, -1024),
    "intercept twice": IMAGE - 1024,
}


@pytest.mark.parametrize("image", WRONG_VALUES.values(), ids=WRONG_VALUES)
def test_values_that_are_no_hounsfield_units_are_refused_and_the_named_window_passes(read, image):
    case = read(image)
    assert len(case.faults) == 1
    option = re.search(r"give --window (\S+?)(, or --allow saturated)?$", case.faults[0])[1]
    assert option != "lung"
    right = read(image, window=option)
    assert right.findings == []
    assert right.window != LUNG_WINDOW


def test_a_window_that_blackens_the_lungs_is_refused_unless_it_is_allowed(read):
    message = refused(read(window="40,400"), "saturated")
    assert message.endswith("the values look like HU: give --window lung, or --allow saturated")
    case = read(window="40,400", allow=("saturated",))
    assert case.faults == []
    assert case.warnings == [message]
    assert [finding.is_allowed for finding in case.findings] == [True]
    assert case.window == Window(40, 400)
    # The name of another fault allows nothing.
    assert refused(read(window="40,400", allow=("overlap",)), "saturated") == message


def test_image_and_masks_swapped_are_refused_in_one_line(read):
    for image in (IMAGE, (IMAGE.clip(-1400, 100) + 1400) // 6):
        message = refused(read(MASKS, image), "not_masks")
        assert message.endswith("labels or more; it looks like an image; are -i and -m swapped?")
        assert "ma.nii: holds" in message


def test_masks_or_an_image_given_twice_are_refused(read, tmp_path):
    for array in (IMAGE, MASKS):
        path = save_nifti(tmp_path / "twice.nii", array, AFFINE)
        assert "twice.nii: is the same file as the image" in refused(read(path, path), "not_masks")
    # The same array in another file.
    twice = MASKS, MASKS.astype(np.float32)
    assert read(*twice, allow=("not_image",)).faults == []
    assert "only the values 0, 1, 2; it looks like masks" in refused(read(*twice), "not_image")


def test_smoothed_masks_are_refused(read):
    planes = [cv2.GaussianBlur((MASKS[:, :, k] > 0) * 255.0, (0, 0), 1.5) for k in range(5)]
    smoothed = np.stack(planes, -1).astype(np.uint8)
    message = refused(read(IMAGE, smoothed), "not_masks")
    assert "smoothed or resized masks" in message
    case = read(IMAGE, smoothed, allow=("not_masks", "ignore_label"))
    assert case.faults == []
    assert case.warnings[0] == message
    np.testing.assert_array_equal(case.masks.array, smoothed)


@pytest.mark.parametrize("fill", [-1, -1024])
def test_negative_labels_are_refused_unless_labels_are_chosen(read, fill):
    masks = MASKS.astype(np.int16)
    masks[OUTSIDE] = fill
    message = refused(read(IMAGE, masks), "negative_labels")
    assert message.endswith("--labels 1,2")
    assert refused(read(IMAGE, masks, allow=FAULTS), "negative_labels") == message
    case = read(IMAGE, masks, objects={"1": (1,), "2": (2,)})
    assert case.findings == []
    np.testing.assert_array_equal(case.masks.array, MASKS)


def test_label_255_beside_others_is_refused_chosen_or_allowed(read):
    masks = MASKS.copy()
    masks[:9, :9] = 255
    message = refused(read(IMAGE, masks), "ignore_label")
    case = read(IMAGE, masks, objects={"1": (1,), "2": (2,)})
    np.testing.assert_array_equal(case.masks.array, MASKS)
    assert case.findings == []
    case = read(IMAGE, masks, allow=("ignore_label",))
    np.testing.assert_array_equal(case.masks.array, masks)
    assert case.warnings == [message]


def test_an_organ_map_is_a_warning_and_objects_are_chosen_and_merged(read):
    lobes = np.where(MASKS == 1, 10, np.where(MASKS == 2, 13, 0))
    lobes[32:] = np.where(MASKS[32:] == 2, 14, lobes[32:])
    organs = np.where(MASKS, lobes, np.where(IMAGE > -400, 90, 0)).astype(np.uint8)
    case = read(IMAGE, organs)
    assert case.faults == []
    assert names(case) == ["many_labels", "coverage"]
    case = read(IMAGE, organs, objects={"left": (10,), "right": (13, 14)})
    assert case.findings == []
    np.testing.assert_array_equal(case.masks.array, MASKS)
    message = refused(read(IMAGE, organs, objects={"5": (5,)}), "missing_label")
    assert "has no label 5; its labels are 10,13,14,90" in message


def test_one_label_for_two_lungs_is_a_warning(read):
    for label in (1, 255):
        case = read(IMAGE, (MASKS > 0) * np.uint8(label))
        assert names(case) == ["one_label"]
        assert case.faults == []
        assert "--points contours" in case.warnings[0]


def test_several_files_are_one_object_each(read):
    left, right = (MASKS == 1) * np.uint8(255), (MASKS == 2).astype(np.float32)
    case = read(IMAGE, left, right)
    assert case.findings == []
    np.testing.assert_array_equal(case.masks.array, MASKS)
    assert [Path(own["file"]).name for own in case.masks_identities] == ["ma.nii", "mb.nii"]
    # An organ outside the scan has an empty file.
    case = read(IMAGE, left, 0 * right, right)
    assert case.findings == []
    np.testing.assert_array_equal(case.masks.array, np.where(MASKS == 2, 3, MASKS))
    case = read(IMAGE, left, 0 * right, right, objects={"left": (1, 2), "right": (3,)})
    assert case.findings == []
    np.testing.assert_array_equal(case.masks.array, MASKS)


def test_files_that_overlap_or_hold_several_labels_are_refused(read):
    left = (MASKS == 1).astype(np.uint8)
    assert "mb.nii: holds several labels" in refused(read(IMAGE, left, MASKS), "several_labels")
    both = (MASKS > 0).astype(np.uint8)
    message = refused(read(IMAGE, left, both), "overlap")
    case = read(IMAGE, left, both, allow=("overlap",))
    assert case.warnings == [message]
    np.testing.assert_array_equal(case.masks.array, MASKS)


def test_masks_that_are_all_background_are_refused(read):
    assert "all background" in refused(read(IMAGE, 0 * MASKS), "empty")
    assert "all background" in refused(read(IMAGE, 0 * MASKS, 0 * MASKS), "empty")
    case = read(IMAGE, MASKS, objects={"3": (3,)}, allow=("missing_label",))
    assert names(case) == ["missing_label", "empty"]
    assert case.masks is None


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_masks_stored_in_another_direction_are_refused_then_turned(read, tmp_path, axis):
    affine = AFFINE.copy()
    affine[:3, 3] += affine[:3, axis] * (MASKS.swapaxes(0, 1).shape[axis] - 1)
    affine[:3, axis] *= -1
    flipped = np.flip(MASKS.swapaxes(0, 1), axis).swapaxes(0, 1)
    path = save_nifti(tmp_path / "flipped.nii", flipped, affine)
    message = refused(read(IMAGE, path), "alignment")
    assert f"its {('left-right', 'front-back', 'head-feet')[axis]} axis is flipped" in message
    case = read(IMAGE, path, align="affine")
    assert case.findings == []
    np.testing.assert_array_equal(case.masks.array, MASKS)
    case = read(IMAGE, path, align="voxels")
    assert case.faults == []
    np.testing.assert_array_equal(case.masks.array, flipped)


def test_files_of_one_case_may_be_stored_in_different_directions(read, tmp_path):
    right = (MASKS == 2).astype(np.uint8)
    moved = AFFINE.copy()
    moved[0, 3], moved[0, 0] = moved[0, 0] * 79, 0.7
    path = save_nifti(tmp_path / "flipped.nii", right[:, ::-1], moved)
    case = read(IMAGE, (MASKS == 1).astype(np.uint8), path, align="affine")
    np.testing.assert_array_equal(case.masks.array, MASKS)
    assert case.findings == []


def test_the_papers_arrays_are_compared_voxel_by_voxel(tmp_path):
    source, paths = f"{PAPER_VOLUMES[0]}.nii.gz", []
    for name, array, affine in (("image", IMAGE, AFFINE), ("masks", MASKS, AFFINE * [-1, 1, 1, 1])):
        (tmp_path / name).mkdir()
        nifti = save_nifti(tmp_path / name / source, array, affine)
        paths.append(tmp_path / f"{name}_{PAPER_VOLUMES[0]}.npy")
        write_numpy(read_nifti(nifti), paths[-1])
    case = read_case(CaseFiles(paths[0], (paths[1],)))
    assert case.faults == []
    assert names(case) == ["offset"]
    assert "left-right axis is flipped" in case.warnings[0]
    np.testing.assert_array_equal(case.masks.array, MASKS)


@pytest.mark.parametrize("axes", [(0, 2, 1), (1, 2, 0)])
def test_slices_of_other_planes_are_refused_and_the_named_conversion_makes_them_axial(
    tmp_path, axes
):
    paths = []
    for name, array in (("ct", IMAGE), ("m", MASKS)):
        stored = np.transpose(array.swapaxes(0, 1), axes)
        path = tmp_path / f"{name}.nii"
        nib.save(nib.Nifti1Image(stored, AFFINE[:, [*axes, 3]]), path)
        paths.append(path)
    case = read_case(CaseFiles(paths[0], (paths[1],)))
    message = refused(case, "orientation")
    assert "nifti_to_numpy.py --orientation radiological" in message
    allowed = read_case(CaseFiles(paths[0], (paths[1],), Reading(allow=("orientation",))))
    assert message in allowed.warnings
    assert allowed.faults == []
    converted = []
    for path in paths:
        converted.append(path.with_suffix(".npy"))
        write_numpy(read_nifti(path, "radiological"), converted[-1])
    case = read_case(CaseFiles(converted[0], (converted[1],)))
    assert case.findings == []
    assert case.image.array.shape == IMAGE.shape
    np.testing.assert_array_equal(case.masks.array, MASKS)


def test_arrays_without_a_sidecar_are_compared_silently_but_slices_first_are_said(tmp_path):
    image, masks = (np.resize(array, (64, 64, 5)) for array in chest(64, 64, 5))
    for order, expected in (((0, 1, 2), []), ((2, 0, 1), ["slices_first"])):
        np.save(tmp_path / "ct.npy", np.transpose(image, order))
        np.save(tmp_path / "m.npy", np.transpose(masks, order))
        case = read_case(CaseFiles(tmp_path / "ct.npy", (tmp_path / "m.npy",)))
        assert case.faults == []
        assert [name for name in names(case) if name == "slices_first"] == expected


def test_transposed_masks_and_masks_of_another_case_are_warnings(tmp_path):
    image, masks = chest(64, 64, 5)
    np.save(tmp_path / "ct_1.npy", image)
    np.save(tmp_path / "m_1.npy", masks.swapaxes(0, 1))
    np.save(tmp_path / "m_2.npy", masks)
    case = read_case(CaseFiles(tmp_path / "ct_1.npy", (tmp_path / "m_1.npy",)))
    assert (names(case), case.faults) == (["transposed"], [])
    case = read_case(CaseFiles(tmp_path / "ct_1.npy", (tmp_path / "m_2.npy",)))
    assert (names(case), case.faults) == (["names"], [])


# Files of the real data, how they are read, and what is found.
REAL = [
    ("image_coronacases_001_slice_122", ["masks_coronacases_001_slice_122"], None, []),
    (
        "image_radiopaedia_14_85914_0_slice_000",
        ["masks_radiopaedia_14_85914_0_slice_000"],
        None,
        [],
    ),
    ("chest_64/ct", ["chest_64/lungs"], None, []),
    ("chest_64/ct", ["chest_64/lung_right", "chest_64/lung_left"], None, []),
    ("chest_64/ct", ["chest_64/lung_left"], None, []),
    ("chest_64/ct", ["chest_64/labels_cip"], None, ["many_labels", "specks", "one_label"]),
    ("lobes_2slices/ct", ["lobes_2slices/lungs"], None, []),
    ("lobes_2slices/ct", ["lobes_2slices/lungs_dcnn"], None, []),
    ("lobes_2slices/ct", ["lobes_2slices/lobes"], None, ["many_labels"]),
    ("lobes_2slices/ct", ["lobes_2slices/lobes"], {"right": (4, 5, 6), "left": (7, 8)}, []),
]


@pytest.mark.parametrize(("image", "masks", "objects", "expected"), REAL)
def test_real_data_has_no_false_alarm(real_data, image, masks, objects, expected):
    path, *masks_paths = (real_data / f"{name}.nii.gz" for name in (image, *masks))
    case = read_case(CaseFiles(path, tuple(masks_paths), Reading(objects=objects)))
    assert names(case) == expected
    assert case.faults == []
    assert case.window == (None if "radiopaedia" in image else LUNG_WINDOW)


def test_real_lungs_of_two_files_or_of_lobes_are_the_lungs_of_one_file(real_data):
    def labels(image, *masks, objects=None):
        paths = [real_data / f"{name}.nii.gz" for name in (image, *masks)]
        return read_case(
            CaseFiles(paths[0], tuple(paths[1:]), Reading(objects=objects))
        ).masks.array

    np.testing.assert_array_equal(
        labels("chest_64/ct", "chest_64/lung_right", "chest_64/lung_left"),
        labels("chest_64/ct", "chest_64/lungs"),
    )
    np.testing.assert_array_equal(
        labels("lobes_2slices/ct", "lobes_2slices/lobes", objects={"r": (4, 5, 6), "l": (7, 8)}),
        labels("lobes_2slices/ct", "lobes_2slices/lungs"),
    )
