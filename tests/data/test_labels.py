from pathlib import Path

import numpy as np
import pytest
from conftest import chest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam_lungs.data.labels import (
    check_labels,
    check_one_object,
    check_parts,
    count_labels,
    merge_files,
    select_objects,
    to_labels,
    values_under,
)
from sam_lungs.data.readers import read_volume
from sam_lungs.data.volume import Volume
from sam_lungs.utils.errors import InputError

PATH = Path("m.nii")
_, LUNGS = chest(80, 112, slices=5)
LABELS = arrays(np.int16, (3, 4, 2), elements=st.integers(-2, 4))


def volume(array: np.ndarray, name: str = "m.nii") -> Volume:
    return Volume(array, None, Path(name))


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        (np.array([0, 1, 2.0009, 0.9991], np.float32), np.uint8),
        (np.array([0, 255.0]), np.uint8),
        (np.array([False, True]), np.uint8),
        (np.array([-1, 2]), np.int16),
        (np.array([0, 70_000], np.uint32), np.int32),
    ],
)
def test_labels_are_integers_of_the_smallest_type(values, dtype):
    labels = to_labels(volume(values.reshape(1, 1, -1))).array
    assert labels.dtype == dtype
    assert labels.ravel().tolist() == np.rint(values.astype(float)).tolist()


def test_labels_that_float32_would_merge_are_refused():
    with pytest.raises(InputError, match=r"^m\.nii: labels must fit into 32 bits"):
        to_labels(volume(np.array([[[0, 2**40, 2**40 + 1]]])))


def test_files_of_one_object_each_become_labels_in_their_order():
    left, right = np.zeros((2, 3, 4, 5), np.uint8)
    left[0], right[2] = 255, 1
    labels, faults = merge_files([volume(left, "l.nii"), volume(right, "r.nii")])
    assert (labels.array == np.array([1, 0, 2])[:, None, None]).all()
    assert labels.path == Path("l.nii")
    assert faults == []
    right[0, 0] = 1
    labels, (fault,) = merge_files([volume(left, "l.nii"), volume(right, "r.nii")])
    assert (labels.array == np.array([1, 0, 2])[:, None, None]).all()
    assert (fault.name, fault.is_fault) == ("overlap", True)
    assert fault.message.startswith("r.nii: 5 of its voxels are in an earlier masks file, too")


def test_a_file_of_several_must_hold_one_object():
    for array in (np.zeros(9), np.full(9, 7), np.array([0, 255, 255])):
        assert check_one_object(volume(array)) is None
    fault = check_one_object(volume(np.array([0, 1, 2])))
    assert (fault.name, fault.is_fault) == ("several_labels", True)
    assert fault.message.startswith("m.nii: holds several labels")


@given(LABELS)
def test_labels_are_counted_in_each_slice(labels):
    expected = {
        label: (labels == label).sum(axis=(0, 1)).tolist()
        for label in np.unique(labels).tolist()
        if label
    }
    assert {label: own.tolist() for label, own in count_labels(labels).items()} == expected


@given(LABELS)
def test_the_values_under_masks_are_those_of_labelled_voxels(labels):
    values = np.arange(labels.size).reshape(labels.shape)
    assert sorted(values_under(labels, values)) == sorted(values[labels != 0])


@given(LABELS)
def test_objects_named_after_their_label_keep_it(labels):
    selected = select_objects(labels, {"1": (1,), "4": (4,)})
    np.testing.assert_array_equal(selected, np.where(np.isin(labels, (1, 4)), labels, 0))
    assert select_objects(labels, None) is labels


@given(LABELS)
def test_merged_objects_are_numbered_in_their_order(labels):
    selected = select_objects(labels, {"right": (4, -1), "left": (2,)})
    expected = np.where(labels == 2, 2, np.where(np.isin(labels, (4, -1)), 1, 0))
    np.testing.assert_array_equal(selected, expected)


def names_and_messages(present: list[int], objects: dict | None = None) -> list[tuple]:
    return [(f.name, f.is_fault, f.message) for f in check_labels(PATH, present, objects)]


@pytest.mark.parametrize("present", [[1], [255], [1, 2], [3, 4]])
def test_one_or_two_labels_are_usual(present):
    assert check_labels(PATH, present, None) == []


@pytest.mark.parametrize(
    ("present", "remedy"),
    [
        ([-1, 1, 2], "1,2"),
        ([-1024, 1], "1"),
        ([-1024, 255], "255"),
        ([-1, *range(1, 13)], "1,2,3,4,5,6,7,8,9,10,11,12"),
    ],
)
def test_negative_labels_are_refused_unless_labels_are_chosen(present, remedy):
    ((name, is_fault, message),) = names_and_messages(present)
    assert (name, is_fault) == ("negative_labels", True)
    assert message.endswith(f"choose labels with --labels {remedy}")
    chosen = {label: (int(label),) for label in remedy.split(",")}
    assert check_labels(PATH, present, chosen) == []


def test_without_another_label_negative_ones_have_no_label_to_choose():
    ((name, _, message),) = names_and_messages([-1])
    assert name == "negative_labels"
    assert "--labels" not in message


def test_label_255_beside_others_is_refused_unless_labels_are_chosen():
    ((name, is_fault, message),) = names_and_messages([1, 2, 255])
    assert (name, is_fault) == ("ignore_label", True)
    assert "255 beside 1,2;" in message
    assert "give --labels 1,2, or --allow ignore_label" in message
    assert check_labels(PATH, [1, 2, 255], {"1": (1,), "2": (2,)}) == []
    assert check_labels(PATH, [1, 2, 255], {"lungs": (1, 2, 255)}) == []


def test_many_labels_are_a_warning_that_counts_them():
    ((name, is_fault, message),) = names_and_messages([4, 5, 6, 7, 8])
    assert (name, is_fault) == ("many_labels", False)
    assert "holds 5 labels (4,5,6,7,8), and each gets a point of its own" in message
    assert "--labels left=... right=..." in message
    assert check_labels(PATH, [4, 5, 6, 7, 8], {"right": (4, 5, 6), "left": (7, 8)}) == []
    ((_, _, message),) = names_and_messages(list(range(1, 118)))
    assert "holds 117 labels (1,2,3,4,5,6,7,8,9,10,...)" in message


def test_a_chosen_label_that_is_missing_is_a_fault_that_names_those_that_are_there():
    ((name, is_fault, message),) = names_and_messages([1, 2], {"left": (2, 10), "right": (11,)})
    assert (name, is_fault) == ("missing_label", True)
    assert "m.nii: has no label 10,11; its labels are 1,2" in message


def parts(labels: np.ndarray) -> list[tuple[str, str]]:
    found = check_parts(PATH, labels, count_labels(labels))
    assert not any(finding.is_fault for finding in found)
    return [(finding.name, finding.message) for finding in found]


def test_two_lungs_of_two_labels_are_no_warning():
    assert parts(LUNGS) == []
    assert parts((LUNGS == 1).astype(np.uint8)) == []


@pytest.mark.parametrize("label", [1, 255])
def test_one_label_for_both_lungs_is_a_warning_that_names_contours(label):
    ((name, message),) = parts(np.where(LUNGS, label, 0))
    assert name == "one_label"
    assert f"label {label} has two large parts in most slices" in message
    assert "--points contours" in message


def test_small_islands_are_no_second_part():
    labels = (LUNGS == 1).astype(np.uint8)
    labels[2:6, 2:6] = 1
    assert parts(labels) == []


def test_specks_are_a_warning_that_counts_slices():
    labels = LUNGS.copy()
    labels[0, :2] = 3
    ((name, message),) = parts(labels)
    assert name == "specks"
    assert "m.nii: label 3 has fewer than 5 pixels in 5 slices, and gets a point in each" in message
    labels = np.zeros((9, 9, 10), np.uint8)
    labels[2:7, 2:7] = 1
    labels[3:, :, :2] = 0
    assert parts(labels) == []


def test_the_ends_of_real_lungs_and_lobes_are_no_warning(real_data):
    for path in ("chest_64/lungs", "lobes_2slices/lobes", "lobes_2slices/lungs_dcnn"):
        assert parts(read_volume(real_data / f"{path}.nii.gz").array) == []
    warnings = dict(parts(read_volume(real_data / "chest_64/labels_cip.nii.gz").array))
    assert "label 521,522,524,525,526,768 has fewer than 5 pixels" in warnings["specks"]
