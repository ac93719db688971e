from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from conftest import chest

from sam_lungs.data.axes import PAPER_AXES
from sam_lungs.data.nifti import read_nifti
from sam_lungs.data.plausibility import (
    MOST_LABELS,
    check_image,
    check_masks,
    check_names,
    check_orientation,
    check_window,
)
from sam_lungs.data.readers import read_volume
from sam_lungs.data.volume import Geometry, Volume
from sam_lungs.data.windowing import LUNG_WINDOW

PATH = Path("masks.nii")
IMAGE, MASKS = chest(160, 224, slices=5)
LUNG = (MASKS != 0).astype(np.float32)
NOISE = np.random.default_rng(0).normal(0, 30, IMAGE.shape)


def smoothed(scale: float, sigma: float) -> np.ndarray:
    planes = [cv2.GaussianBlur(LUNG[:, :, k] * scale, (0, 0), sigma) for k in range(5)]
    return np.stack(planes, axis=-1)


def resized(factor: float, interpolation: int) -> np.ndarray:
    """Return masks of 0 and 255 with more or fewer rows and columns."""
    planes = [
        cv2.resize(LUNG[:, :, k] * 255, None, fx=factor, fy=factor, interpolation=interpolation)
        for k in range(5)
    ]
    return np.stack(planes, axis=-1).astype(np.uint8)


def one_voxel() -> np.ndarray:
    masks = np.zeros((64, 64, 3), np.uint8)
    masks[3, 3, 1] = 1
    return masks


VOLUMES_OF_LABELS = {
    "two lungs": MASKS,
    "boolean": MASKS != 0,
    "0 and 255": (MASKS != 0) * np.uint8(255),
    "float with noise": MASKS + np.float32(1e-4),
    "float64": MASKS.astype(np.float64),
    "nearest neighbours": resized(1.4, cv2.INTER_NEAREST),
    "one voxel": one_voxel(),
    "four single voxels": one_voxel() * np.uint8(3) + np.roll(one_voxel(), 9) * np.uint8(2),
    "nothing": np.zeros((5, 6, 3), np.uint8),
    "salt": (np.random.default_rng(0).random((64, 64, 3)) < 0.1).astype(np.uint8),
    # 117 labels in blocks of 16 x 16 pixels.
    "many organs": np.kron(np.arange(117).reshape(9, 13), np.ones((16, 16), int))[:, :, None],
    "labels beyond 8 bits": MASKS.astype(np.int32) * 70_000,
}
IMAGES = {
    "ct": (IMAGE + NOISE).astype(np.int16),
    "raw ct": (IMAGE + NOISE + 1024).clip(0).astype(np.uint16),
    "8 bits": ((IMAGE + NOISE).clip(-1400, 100) / 6 + 233).clip(0, 255).astype(np.uint8),
    "16 grey values": ((IMAGE + NOISE + 1200).clip(0, 1500) // 100).astype(np.uint8),
    "float ct": (IMAGE + NOISE).astype(np.float32),
    "normalized": ((IMAGE + NOISE) / 400).astype(np.float32),
}
SMOOTHED = {
    "antialiased": smoothed(255, 3).astype(np.uint8),
    "a little antialiased": smoothed(255, 0.6).astype(np.uint8),
    "percent": smoothed(100, 2).astype(np.uint8),
    "linear": resized(1.4, cv2.INTER_LINEAR),
    "twice as large": resized(2, cv2.INTER_LINEAR),
    "half as large": resized(0.5, cv2.INTER_AREA),
}


@pytest.mark.parametrize("labels", VOLUMES_OF_LABELS.values(), ids=VOLUMES_OF_LABELS)
def test_label_volumes_are_accepted(labels):
    assert check_masks(PATH, labels) is None


@pytest.mark.parametrize("values", IMAGES.values(), ids=IMAGES)
def test_an_image_is_no_label_volume(values):
    fault = check_masks(PATH, values)
    assert fault.is_fault
    assert "image; are -i and -m swapped?" in fault.message.replace("an image? are", "image; are")


def test_the_number_of_labels_is_in_the_message():
    values = np.arange(4000).reshape(40, 100, 1)
    assert check_masks(PATH, values).message == (
        "masks.nii: holds 3999 labels or more; it looks like an image; are -i and -m swapped?"
    )
    blocks = np.kron(np.arange(MOST_LABELS + 1), np.ones((16, 16), int))[:, :, None]
    assert check_masks(PATH, blocks) is None
    blocks = np.kron(np.arange(MOST_LABELS + 2), np.ones((16, 16), int))[:, :, None]
    assert check_masks(PATH, blocks).name == "not_masks"


@pytest.mark.parametrize("labels", SMOOTHED.values(), ids=SMOOTHED)
def test_smoothed_masks_are_refused_and_the_named_threshold_makes_masks(labels):
    fault = check_masks(PATH, labels)
    assert fault.name == "not_masks"
    assert fault.is_fault
    text, threshold = fault.message.split(" values above ")
    assert text.endswith("it looks like smoothed or resized masks; write masks of")
    assert check_masks(PATH, labels > int(threshold)) is None
    assert int(threshold) == pytest.approx(labels.max() / 2, abs=1)


def test_probabilities_are_refused():
    fault = check_masks(PATH, smoothed(1, 2))
    assert (fault.name, fault.is_fault) == ("fractions", True)
    assert fault.message.endswith("like probabilities; write masks of those above 0.5")
    assert check_masks(PATH, smoothed(1, 2) > 0.5) is None


def test_a_fraction_in_any_slice_is_found():
    labels = np.repeat(LUNG, 20, axis=2)
    labels[0, 0, 77] = 0.01
    assert check_masks(PATH, labels).name == "fractions"


@pytest.mark.parametrize("name", ["two lungs", "0 and 255", "float64", "nearest neighbours"])
def test_masks_are_no_image(name):
    fault = check_image(PATH, VOLUMES_OF_LABELS[name])
    assert (fault.name, fault.is_fault) == ("not_image", True)
    assert fault.message.startswith("masks.nii: holds only the values 0, ")


@pytest.mark.parametrize(
    "values",
    [*IMAGES.values(), IMAGE, np.linspace(0, 1, 60).reshape(3, 4, 5)],
)
def test_images_are_images(values):
    assert check_image(PATH, values) is None


@pytest.mark.parametrize("value", [0, -1000])
def test_a_constant_volume_is_no_image(value):
    fault = check_image(PATH, np.full((4, 5, 2), value))
    assert (fault.name, fault.is_fault) == ("not_image", True)
    assert f"every voxel is {value}," in fault.message


def test_a_window_that_saturates_is_a_fault_that_can_be_allowed():
    image = Volume(IMAGES["raw ct"], None, Path("ct.npy"))
    under_masks = image.array[MASKS != 0]
    fault = check_window(image, LUNG_WINDOW, under_masks)
    assert (fault.name, fault.is_fault) == ("saturated", True)
    assert fault.message.startswith("ct.npy: 99% of the voxels under the masks lie outside")
    assert fault.message.endswith("give --window 374,1500, or --allow saturated")
    image = replace(image, array=IMAGES["ct"])
    assert check_window(image, LUNG_WINDOW, image.array[MASKS != 0]) is None


def test_a_picture_is_shown_as_it_is():
    rimmed = IMAGES["8 bits"].astype(np.int16)
    rimmed[:9] = -2000
    image = Volume(rimmed, None, Path("xray.png"))
    assert check_window(image, None, None).name == "saturated"
    assert check_window(replace(image, is_picture=True), None, None) is None


def volume(shape: tuple[int, int, int], affine: np.ndarray | None, **fields) -> Volume:
    """Return a volume whose array is its file's with the first two axes swapped."""
    file_shape = (shape[1], shape[0], shape[2])
    geometry = None if affine is None else Geometry(affine, file_shape, PAPER_AXES, **fields)
    return Volume(np.zeros(shape, np.uint8), geometry, Path("ct.nii"))


AXIAL = np.diag([-0.7, -0.7, 5, 1])
OTHER_PLANES = {"coronal": (0, 2, 1, 3), "sagittal": (1, 2, 0, 3)}


@pytest.mark.parametrize("plane", OTHER_PLANES)
def test_slices_that_are_not_axial_are_a_fault(plane):
    fault = check_orientation(volume((8, 9, 7), AXIAL[:, OTHER_PLANES[plane]]))
    assert (fault.name, fault.is_fault) == ("orientation", True)
    assert f"ct.nii: its slices are {plane}, not axial" in fault.message
    assert "nifti_to_numpy.py --orientation radiological" in fault.message
    # A single slice may be of any plane: there is no other axis of slices.
    assert check_orientation(volume((8, 9, 1), AXIAL[:, OTHER_PLANES[plane]])) is None


def test_axial_slices_may_be_tilted_flipped_or_swapped():
    tilt = np.array([[1, 0, 0, 0], [0, 0.8, -0.6, 0], [0, 0.6, 0.8, 0], [0, 0, 0, 1]])
    for affine in (AXIAL, tilt @ AXIAL, -AXIAL, AXIAL[[1, 0, 2, 3]]):
        assert check_orientation(volume((8, 9, 9), affine)) is None


@pytest.mark.parametrize("affine", [None, AXIAL])
def test_an_array_with_slices_first_is_a_warning(affine):
    def check(*shape: int):
        return check_orientation(volume(shape, affine, is_oriented=False))

    for shape in ((60, 64, 64), (100, 64, 64)):
        finding = check(*shape)
        assert (finding.name, finding.is_fault) == ("slices_first", False)
        assert f"has shape {shape}" in finding.message
    for shape in ((64, 64, 60), (64, 64, 64), (64, 60, 64), (64, 1, 1), (1, 1, 1)):
        assert check(*shape) is None


def test_slices_first_with_an_identity_affine_are_a_warning():
    # What `Nifti1Image(GetArrayFromImage(image), np.eye(4))` makes of an ITK image.
    finding = check_orientation(volume((64, 60, 64), np.eye(4)))
    assert (finding.name, finding.is_fault) == ("slices_first", False)
    assert "shape (60, 64, 64)" in finding.message
    assert check_orientation(volume((64, 64, 60), np.eye(4))) is None
    assert check_orientation(volume((64, 60, 64), AXIAL)) is None


def test_a_header_without_orientation_is_a_warning():
    finding = check_orientation(volume((8, 9, 7), AXIAL, is_oriented=False, header={"qform": 0}))
    assert (finding.name, finding.is_fault) == ("orientation_unknown", False)


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("image_case2.npy", ["masks_case1.npy"]),
        ("case_01.nii.gz", ["case_02.nii.gz"]),
        ("case_1.nii", ["case_11.nii"]),
        ("radiopaedia_10_85902_1.nii.gz", ["radiopaedia_10_85902_3.nii.gz"]),
        ("case_3_0000.nii.gz", ["case_4.nii.gz"]),
        ("case_3.nii.gz", ["case_4_left.nii", "case_4_right.nii"]),
        ("s0001/ct.nii.gz", ["s0002/segmentations/lung_left.nii.gz"]),
    ],
)
def test_names_that_disagree_are_a_warning(image, masks):
    finding = check_names(Path(image), [Path(name) for name in masks])
    assert (finding.name, finding.is_fault) == ("names", False)
    assert finding.message.startswith(f"{masks[0]}: by its name it belongs to another image")


@pytest.mark.parametrize(
    ("image", "masks"),
    [
        ("ct.nii.gz", ["lungs.nii.gz"]),
        ("image.nii", ["mask.nii"]),
        ("image_coronacases_001.npy", ["masks_coronacases_001.npy"]),
        ("COVID-19-CT-Seg_20cases/coronacases_001.nii.gz", ["Lung_Mask/coronacases_001.nii.gz"]),
        ("imagesTr/case_003_0000.nii.gz", ["labelsTr/case_003.nii.gz"]),
        ("case_1.nii", ["case_001.nii"]),
        ("1.jpg", ["1-mask.png"]),
        ("case_7.nii.gz", ["lung_1.nii.gz", "lung_2.nii.gz"]),
        ("case_7.nii.gz", ["lungs.nii.gz"]),
        ("s0001/ct.nii.gz", ["s0001/segmentations/lung_left.nii.gz"]),
        ("2023/ct.nii.gz", ["lungs.nii.gz"]),
        ("scan_2.dcm", ["seg_7.dcm"]),
    ],
)
def test_names_that_do_not_disagree_are_accepted(image, masks):
    assert check_names(Path(image), [Path(name) for name in masks]) is None


def test_real_files_are_accepted(real_data):
    for path in ("chest_64/labels_cip", "lobes_2slices/labels_cip", "dicom_jpeg2000/labels_117"):
        masks = read_volume(real_data / f"{path}.nii.gz")
        assert check_masks(masks.path, masks.array) is None
        assert check_orientation(masks) is None
    for path in ("chest_64/ct", "image_radiopaedia_14_85914_0_slice_000", "lobes_2slices/ct"):
        image = read_volume(real_data / f"{path}.nii.gz")
        assert check_image(image.path, image.array) is None
        assert check_orientation(image) is None
        assert check_masks(image.path, image.array).name == "not_masks"
        assert check_orientation(read_nifti(image.path, "radiological")) is None
    for number in range(1, 5):
        xray = cv2.imread(str(real_data / f"xrays/{number}.jpg"), cv2.IMREAD_GRAYSCALE)[:, :, None]
        mask = cv2.imread(str(real_data / f"xrays/{number}-mask.png"), cv2.IMREAD_GRAYSCALE)
        assert check_image(PATH, xray) is None
        assert check_masks(PATH, mask[:, :, None]) is None
        assert check_masks(PATH, xray).name == "not_masks"
