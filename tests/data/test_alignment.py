from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nibabel import orientations
from patient import ALL_ORIENTATIONS, PATIENT, PATIENT_AFFINE

from sam_lungs.data.alignment import align_masks
from sam_lungs.data.axes import PAPER_AXES
from sam_lungs.data.volume import Geometry, Volume
from sam_lungs.data.zenodo import PAPER_VOLUMES
from sam_lungs.utils.errors import InputError

LABELS = (PATIENT % 3).astype(np.uint8)
LABELS[0, 0, 0] = 0


def volume(stored: np.ndarray, affine: np.ndarray, name: str) -> Volume:
    """Return the volume that `read_nifti` makes of an array along the axes of its file."""
    geometry = Geometry(affine, stored.shape, PAPER_AXES)
    array = orientations.apply_orientation(stored, PAPER_AXES)
    return Volume(array, geometry, Path(name), source_name=name)


def pair(
    image_codes: str = "LPS", masks_codes: str = "LPS", change: np.ndarray | None = None
) -> tuple[Volume, Volume]:
    """Return the patient and its labels, stored along these axes.

    change: (4, 4), to the affine of the masks, from millimetres to millimetres.
    """
    volumes = []
    for codes, array, name in ((image_codes, PATIENT, "ct.nii"), (masks_codes, LABELS, "m.nii")):
        turn = orientations.ornt_transform(
            orientations.axcodes2ornt("PLS"), orientations.axcodes2ornt(codes)
        )
        stored = nib.Nifti1Image(array, PATIENT_AFFINE).as_reoriented(turn)
        volumes.append(volume(np.array(stored.dataobj), stored.affine, name))
    image, masks = volumes
    if change is not None:
        masks = replace(
            masks, geometry=replace(masks.geometry, affine=change @ masks.geometry.affine)
        )
    return image, masks


def moved(*offset_mm: float) -> np.ndarray:
    return nib.affines.from_matvec(np.eye(3), offset_mm)


@given(st.sampled_from(ALL_ORIENTATIONS), st.sampled_from(ALL_ORIENTATIONS))
def test_masks_in_any_orientation_get_the_labels_of_the_aligned_pair(image_codes, masks_codes):
    image, masks = pair(image_codes, masks_codes)
    aligned, findings = align_masks(image, masks, "affine")
    np.testing.assert_array_equal(aligned.array, pair(image_codes, image_codes)[1].array)
    assert aligned.geometry is image.geometry
    assert findings == []
    if image_codes == masks_codes:
        np.testing.assert_array_equal(align_masks(image, masks)[0].array, aligned.array)
    else:
        with pytest.raises(InputError, match=r"^m\.nii: .*--align affine"):
            align_masks(image, masks)


@pytest.mark.parametrize(
    ("masks_codes", "words"),
    [
        ("RPS", "its left-right axis is flipped"),
        ("LAS", "its front-back axis is flipped"),
        ("LPI", "its head-feet axis is flipped"),
        ("RAS", "its front-back and left-right axes are flipped"),
        ("PLS", "its front-back and left-right axes are swapped"),
        ("LSP", "its front-back and head-feet axes are swapped"),
        ("SPR", "its left-right axis is flipped and its head-feet and left-right axes are swapped"),
    ],
)
def test_auto_names_the_axes_and_only_remedies_that_work(masks_codes, words):
    image, masks = pair(masks_codes=masks_codes)
    with pytest.raises(InputError) as error:
        align_masks(image, masks)
    message = str(error.value)
    assert f"m.nii: {words} against ct.nii; give --align affine" in message
    align_masks(image, masks, "affine")
    # All lengths differ, so that swapped axes give another shape.
    assert ("--align voxels" in message) == ("swapped" not in words)
    if "--align voxels" in message:
        aligned, findings = align_masks(image, masks, "voxels")
        np.testing.assert_array_equal(aligned.array, masks.array)
        assert [finding.name for finding in findings] == ["offset"]
        assert words in findings[0].message
        assert not findings[0].is_fault
    else:
        with pytest.raises(InputError, match="masks have shape"):
            align_masks(image, masks, "voxels")


@pytest.mark.parametrize("offset_mm", [(0, 0, 0), (0.003, 0, 0), (0, 0.04, 0), (0, 0, -0.19)])
@pytest.mark.parametrize("align", ["auto", "affine", "voxels"])
def test_a_tenth_of_a_voxel_is_no_disagreement(offset_mm, align):
    image, masks = pair(change=moved(*offset_mm))
    aligned, findings = align_masks(image, masks, align)
    np.testing.assert_array_equal(aligned.array, masks.array)
    assert aligned.geometry is image.geometry
    assert findings == []


def test_an_offset_below_a_voxel_is_a_warning_in_millimetres():
    image, masks = pair(change=moved(0, 0, 1.5))
    aligned, (finding,) = align_masks(image, masks)
    np.testing.assert_array_equal(aligned.array, masks.array)
    assert finding.name == "offset"
    assert finding.message == "m.nii: by its affine it lies 1.5 mm away from ct.nii"
    assert not finding.is_fault
    with pytest.raises(InputError, match=r"1\.5 mm away.* resample the masks"):
        align_masks(image, masks, "affine")


def test_masks_that_are_moved_by_whole_voxels_are_refused_or_placed():
    image, masks = pair(change=moved(0, 0, 2))
    masks.array[:, :, -1] = 0
    with pytest.raises(InputError, match=r"2 mm away.* --align affine .* --align voxels"):
        align_masks(image, masks)
    aligned, _ = align_masks(image, masks, "affine")
    np.testing.assert_array_equal(aligned.array[:, :, 1:], masks.array[:, :, :-1])
    assert not aligned.array[:, :, 0].any()


def test_masks_of_another_shape_are_placed_if_all_labels_are_in_the_image():
    image, masks = pair()
    cropped = replace(
        masks,
        array=masks.array[1:, :2, 2:4],
        # Columns grow towards the left, rows towards the back.
        geometry=Geometry(
            masks.geometry.array_affine @ moved(1, 0, 2),
            (2, 2, 2),
            np.array([[0, 1], [1, 1], [2, 1]]),
        ),
    )
    with pytest.raises(InputError) as error:
        align_masks(image, cropped)
    assert "--align affine" in str(error.value)
    assert "--align voxels" not in str(error.value)
    aligned, _ = align_masks(image, cropped, "affine")
    expected = np.zeros_like(masks.array)
    expected[1:, :2, 2:4] = masks.array[1:, :2, 2:4]
    np.testing.assert_array_equal(aligned.array, expected)


def test_labels_outside_the_image_are_counted_and_refused():
    image, masks = pair(change=moved(0, 0, 2))
    lost = np.count_nonzero(masks.array[:, :, -1])
    with pytest.raises(InputError, match=rf"^m\.nii: {lost} labelled voxels lie outside ct\.nii"):
        align_masks(image, masks, "affine")
    with pytest.raises(InputError) as error:
        align_masks(image, masks)
    assert "--align affine" not in str(error.value)
    assert "--align voxels" in str(error.value)
    # Far away, too, where no voxel is common.
    image, masks = pair(change=moved(0, 0, 2000))
    with pytest.raises(InputError, match=rf"{np.count_nonzero(LABELS)} labelled voxels"):
        align_masks(image, masks, "affine")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (np.diag([1, 1, 2.0, 1]), "its voxels have 0.5 x 0.75 x 4 mm, but those of ct.nii 0.5 x"),
        (nib.affines.from_matvec(nib.eulerangles.euler2mat(0.5), [0, 0, 0]), "mm away"),
        (moved(0, 0, 3), "3 mm away"),
    ],
)
def test_other_grids_are_refused_without_affine_as_a_remedy(change, words):
    image, masks = pair(change=change)
    with pytest.raises(InputError) as error:
        align_masks(image, masks)
    assert words in str(error.value)
    assert "--align affine" not in str(error.value)
    assert "resampled" in str(error.value)
    assert "--align voxels" in str(error.value)
    with pytest.raises(InputError, match="resample the masks"):
        align_masks(image, masks, "affine")
    align_masks(image, masks, "voxels")


@pytest.mark.parametrize("which", ["image", "masks"])
@pytest.mark.parametrize("is_oriented", [None, False])
def test_without_an_orientation_voxels_are_compared_silently(which, is_oriented):
    volumes = dict(zip(("image", "masks"), pair(masks_codes="RAS"), strict=True))
    geometry = volumes[which].geometry
    unknown = None if is_oriented is None else replace(geometry, is_oriented=False)
    volumes[which] = replace(volumes[which], geometry=unknown)
    aligned, findings = align_masks(**volumes)
    np.testing.assert_array_equal(aligned.array, volumes["masks"].array)
    assert findings == []
    with pytest.raises(InputError, match=rf"^{volumes[which].path}: .*--align voxels"):
        align_masks(**volumes, align="affine")
    with pytest.raises(InputError, match=r"masks have shape \(3, 4, 4\)"):
        align_masks(volumes["image"], replace(volumes["masks"], array=LABELS[:, :, 1:]))


def test_the_volumes_of_the_paper_are_compared_voxel_by_voxel():
    image, masks = pair(masks_codes="RAS")
    name = f"{PAPER_VOLUMES[3]}.nii.gz"
    image, masks = replace(image, source_name=name), replace(masks, source_name=name)
    aligned, (finding,) = align_masks(image, masks)
    np.testing.assert_array_equal(aligned.array, masks.array)
    assert "axes are flipped" in finding.message
    assert "as in the paper" in finding.message
    with pytest.raises(InputError):
        align_masks(image, replace(masks, source_name="lungs.nii.gz"))
    aligned, _ = align_masks(image, masks, "affine")
    np.testing.assert_array_equal(aligned.array, pair()[1].array)


def test_masks_that_only_their_affine_places_are_placed_by_it():
    image, masks = pair(masks_codes="RAS")
    masks = replace(masks, is_placed=True)
    aligned, findings = align_masks(image, masks)
    np.testing.assert_array_equal(aligned.array, pair()[1].array)
    assert findings == []
    with pytest.raises(InputError, match=r"^ct\.nii: its affine is not known"):
        align_masks(replace(image, geometry=None), masks)
    align_masks(replace(image, geometry=None), masks, "voxels")


def test_one_slice_has_no_direction_along_its_axis():
    image, masks = pair()
    image = replace(image, array=image.array[:, :, :1])
    flipped = masks.geometry.affine * [1, 1, -1, 1]
    masks = replace(
        masks, array=masks.array[:, :, :1], geometry=replace(masks.geometry, affine=flipped)
    )
    aligned, findings = align_masks(image, masks)
    np.testing.assert_array_equal(aligned.array, masks.array)
    assert findings == []
