import numpy as np
import pytest
from scanner import AXIAL, OBLIQUE, VOXELS, change, save, scan, segmentation

from sam_lungs.data import guard
from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.readers import identify, read_volume
from sam_lungs.utils.errors import InputError

# Labels 1 and 2; the first slice and one in the middle are empty.
LABELS = np.zeros(VOXELS.shape, np.uint8)
LABELS[0, :2, 1] = LABELS[0, 1, 3] = LABELS[2, 3, 4] = 1
LABELS[1, 2:, 1] = 2


@pytest.mark.parametrize("kind", ["BINARY", "LABELMAP"])
@pytest.mark.parametrize("directions", [AXIAL, OBLIQUE])
@pytest.mark.parametrize("orientation", ["paper", "radiological"])
def test_labels_lie_where_the_affine_says(tmp_path, kind, directions, orientation):
    images = scan(directions=directions)
    segmentation(images, LABELS, kind).save_as(tmp_path / "masks.dcm")
    volume = read_volume(save(tmp_path / "scan", images), orientation="paper")
    masks = read_volume(tmp_path / "masks.dcm", orientation=orientation)
    assert masks.is_placed
    assert masks.array.dtype == np.uint8
    found = np.argwhere(masks.array)
    placed = np.linalg.solve(volume.geometry.array_affine, masks.geometry.array_affine)
    on_image = np.rint(found @ placed[:3, :3].T + placed[:3, 3])
    np.testing.assert_allclose(found @ placed[:3, :3].T + placed[:3, 3], on_image, atol=1e-4)
    again = np.zeros_like(LABELS)
    again[tuple(on_image.astype(int).T)] = masks.array[tuple(found.T)]
    np.testing.assert_array_equal(again, LABELS)
    if (kind, orientation) == ("BINARY", "paper"):
        # Slices without a segment are left out at the ends, and filled in between.
        np.testing.assert_array_equal(masks.array, LABELS[:, :, 1:])


def test_a_file_and_a_folder_have_the_same_labels_and_the_image_is_preferred(tmp_path):
    images = scan()
    folder = save(tmp_path / "scan", images)
    (tmp_path / "masks").mkdir()
    path = tmp_path / "masks" / "1.dcm"
    segmentation(images, LABELS).save_as(path)
    for each in (path, path.parent):
        masks = read_volume(each)
        assert masks.array.max() == 2
        assert masks.identity == identify(each)
    np.testing.assert_array_equal(read_volume(tmp_path).array, VOXELS)
    np.testing.assert_array_equal(read_volume(tmp_path, series="1.2.7").array, LABELS[:, :, 1:])
    (folder / "seg.dcm").write_bytes(path.read_bytes())
    np.testing.assert_array_equal(read_volume(folder).array, VOXELS)


def test_a_converted_segmentation_is_still_placed_by_its_affine(tmp_path):
    segmentation(scan(), LABELS).save_as(tmp_path / "masks.dcm")
    masks = read_volume(tmp_path / "masks.dcm")
    write_numpy(masks, tmp_path / "masks.npy")
    again = read_volume(tmp_path / "masks.npy")
    assert again.is_placed
    np.testing.assert_array_equal(again.geometry.array_affine, masks.geometry.array_affine)


def test_segments_that_overlap_are_refused(tmp_path):
    stack = np.moveaxis(LABELS, 2, 0) > 0
    both = np.stack([stack, stack], axis=-1).astype(np.uint8)
    segmentation(scan(), both).save_as(tmp_path / "masks.dcm")
    with pytest.raises(InputError, match=r"masks\.dcm: its segments overlap"):
        read_volume(tmp_path / "masks.dcm")


def test_a_fractional_segmentation_is_refused(tmp_path):
    fraction = np.moveaxis(LABELS, 2, 0)[..., None].clip(0, 1) * 0.5
    segmentation(scan(), fraction, "FRACTIONAL").save_as(tmp_path / "masks.dcm")
    with pytest.raises(InputError, match=r"masks\.dcm: a fractional segmentation"):
        read_volume(tmp_path / "masks.dcm")


def test_two_segmentations_of_one_series_are_refused(tmp_path):
    for name in ("a.dcm", "b.dcm"):
        segmentation(scan(), LABELS).save_as(tmp_path / name)
    with pytest.raises(InputError, match="2 segmentations"):
        read_volume(tmp_path)
    assert read_volume(tmp_path / "a.dcm").array.any()


def test_more_voxels_than_the_limit_are_refused(tmp_path, monkeypatch):
    segmentation(scan(), LABELS).save_as(tmp_path / "masks.dcm")
    size = (tmp_path / "masks.dcm").stat().st_size

    def move(dataset):
        frame = dataset.PerFrameFunctionalGroupsSequence[0]
        frame.PlanePositionSequence[0].ImagePositionPatient[2] += 2000 * 2

    change(tmp_path, move, "masks.dcm")
    monkeypatch.setattr(guard, "MAX_VOLUME_BYTES", size + 2000)
    with pytest.raises(InputError, match="at most"):
        read_volume(tmp_path / "masks.dcm")


def test_a_truncated_segmentation_is_refused(tmp_path):
    path = tmp_path / "masks.dcm"
    segmentation(scan(), LABELS).save_as(path)
    content = path.read_bytes()
    for end in range(140, len(content), len(content) // 20):
        path.write_bytes(content[:end])
        with pytest.raises(InputError, match=r"masks\.dcm") as error:
            read_volume(path)
        assert "\n" not in str(error.value)
