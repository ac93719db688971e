import tracemalloc

import cv2
import numpy as np
import pytest
from conftest import chest
from matplotlib.axes import Axes
from nibabel import orientations

from sam_lungs.data.volume import Geometry
from sam_lungs.prompts.protocols import PromptProtocol
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.segmenters.base import Prediction
from sam_lungs.study.options import LAYERS
from sam_lungs.study.pictures import save_prediction

PAPER = PromptProtocol()
# Colours as they are drawn, RGB.
GREEN_STAR, RED_STAR, ORANGE = (50, 205, 50), (255, 0, 0), (255, 165, 0)
TRANSLUCENT_BLUE = (0.5 * np.array([0.12, 0.56, 1.0]) * 255 + 45).round()  # over grey of 90
COLOURS = {
    "mask": [TRANSLUCENT_BLUE],
    "contours": [(0, 255, 0)],
    "points": [GREEN_STAR, RED_STAR],
    "box": [ORANGE],
}


def geometry_of(shape, codes: str, sizes_mm=(1, 1, 1)) -> Geometry:
    """The geometry of an array whose rows, columns and slices grow towards `codes`."""
    affine = orientations.inv_ornt_aff(
        orientations.ornt_transform(
            orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(codes)
        ),
        np.array((100, 100, 100)),
    ) @ np.diag([*sizes_mm, 1.0])
    return Geometry(affine, shape, np.array([[0, 1], [1, 1], [2, 1]]))


def draw(path, image, masks, geometry=None, protocol=PAPER, layers=LAYERS) -> np.ndarray:
    """Draw one grey slice with a prediction in its first quarter; return the picture, RGB."""
    predicted = np.zeros(masks.shape, dtype=bool)
    predicted[: masks.shape[0] // 4, : masks.shape[1] // 4] = True
    save_prediction(
        path,
        np.repeat(image[:, :, None], 3, axis=2),
        masks,
        [make_prompts(masks, protocol)],
        Prediction(predicted, 0.98765),
        geometry,
        layers,
    )
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


@pytest.mark.parametrize(
    ("has_reference", "predicted_iou", "title"),
    [
        (True, 0.98765, "Dice 0.6667, predicted IoU 0.9877"),
        (True, np.nan, "Dice 0.6667"),
        (False, 0.5, "predicted IoU 0.5000"),
        (False, np.nan, ""),
    ],
)
def test_the_title_is_what_is_known(tmp_path, monkeypatch, has_reference, predicted_iou, title):
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda axes, text, **style: titles.append(text))
    masks = np.zeros((8, 8), np.uint8)
    predicted = np.zeros(masks.shape, bool)
    predicted[:2, :2] = True
    if has_reference:
        masks[0, 0], masks[0, 1] = 1, 2
    image_rgb = np.zeros((8, 8, 3), np.uint8)
    prediction = Prediction(predicted, predicted_iou)
    save_prediction(tmp_path / "a.png", image_rgb, masks, [], prediction, None)
    assert titles == [title]


def has(picture: np.ndarray, colour, tolerance: int = 2) -> np.ndarray:
    """Where a picture has a colour, (rows, columns) bool."""
    return (np.abs(picture.astype(int) - colour) <= tolerance).all(axis=2)


def centre_of(picture: np.ndarray, colour, tolerance: int = 2) -> np.ndarray:
    """Mean (row, column) of a colour, as fractions of the picture's height and width."""
    near = has(picture, colour, tolerance)
    assert near.any(), f"no {colour}"
    return np.argwhere(near).mean(axis=0) / near.shape


@pytest.fixture
def grey_slice():
    masks = np.zeros((60, 80), dtype=np.uint8)
    masks[5:15, 10:20] = 1
    return np.full((60, 80), 90, dtype=np.uint8), masks


def test_masks_points_and_box_are_drawn(tmp_path, grey_slice):
    picture = draw(tmp_path / "slice.png", *grey_slice)
    for colour in (GREEN_STAR, RED_STAR, ORANGE, (0, 255, 0)):
        centre_of(picture, colour)
    assert (centre_of(picture, TRANSLUCENT_BLUE) < 0.3).all()
    assert list(tmp_path.iterdir()) == [tmp_path / "slice.png"]


def test_each_label_has_its_contour_and_the_box_frames_whole_pixels(tmp_path, grey_slice):
    image, masks = grey_slice
    masks[40:50, 60:70] = 2
    picture = draw(tmp_path / "slice.png", image, masks).astype(int)
    lime = (np.abs(picture - (0, 255, 0)) <= 2).all(axis=2)
    height, width = lime.shape
    assert lime[: height // 2, : width // 2].any()
    assert lime[height // 2 :, width // 2 :].any()
    # The box is around both labels; its edges are half a pixel outside of their outer pixels.
    orange = np.argwhere((np.abs(picture - ORANGE) <= 40).all(axis=2))
    slice_pixel = width / 80
    green = np.argwhere(lime)
    assert np.abs(orange.min(axis=0) - green.min(axis=0)).max() < 0.6 * slice_pixel
    assert np.abs(orange.max(axis=0) - green.max(axis=0)).max() < 0.6 * slice_pixel


def test_the_title_is_above_the_slice(tmp_path, grey_slice):
    picture = draw(tmp_path / "slice.png", *grey_slice)
    first_row_of_slice = np.flatnonzero((picture == 90).all(axis=2).mean(axis=1) > 0.5)[0]
    above = picture[:first_row_of_slice]
    assert (above < 50).any()
    assert (above[0] == 255).all()


@pytest.mark.parametrize("layers", [(), *((name,) for name in LAYERS), ("points", "box")], ids=str)
def test_only_the_chosen_layers_are_drawn(tmp_path, grey_slice, layers):
    picture = draw(tmp_path / "slice.png", *grey_slice, layers=layers)
    for name, colours in COLOURS.items():
        for colour in colours:
            assert has(picture, colour).any() == (name in layers)
    # The title belongs to the mask.
    assert has(picture, (0, 0, 0), 50).any() == ("mask" in layers)


def test_a_large_slice_is_drawn_in_little_memory(tmp_path):
    """As large as an X-ray. Contour, box and points are where they are in the slice."""
    masks = np.zeros((4020, 4892), dtype=np.uint8)
    masks[1005:2010, 1223:2446] = 1  # the second quarter of the rows and of the columns
    image = np.full(masks.shape, 90, dtype=np.uint8)
    tracemalloc.start()
    try:
        picture = draw(tmp_path / "slice.png", image, masks)
        # This test's own RGB slice and prediction take 79 MB, the pixels of the lung 20 MB.
        assert tracemalloc.get_traced_memory()[1] < 450e6
    finally:
        tracemalloc.stop()
    height, width = picture.shape[:2]
    lime = np.argwhere(has(picture, (0, 255, 0)))
    white = (picture == 255).all(axis=2)
    top, bottom = np.flatnonzero(~white[:, width // 8])[[0, -1]]
    left, right = np.flatnonzero(~white[height // 2])[[0, -1]]
    size_rc, first_rc = np.array([bottom - top, right - left]), np.array([top, left])
    fractions = (np.array([lime.min(axis=0), lime.max(axis=0)]) - first_rc) / size_rc
    np.testing.assert_allclose(fractions, [[0.25, 0.25], [0.5, 0.5]], atol=0.004)
    star = (centre_of(picture, RED_STAR) * (height, width) - first_rc) / size_rc
    np.testing.assert_allclose(star, [0.375, 0.375], atol=0.01)


def test_prompts_that_are_switched_off_are_not_drawn(tmp_path, grey_slice):
    protocol = PromptProtocol(negative="none", box=False)
    picture = draw(tmp_path / "slice.png", *grey_slice, protocol=protocol)
    for colour in (RED_STAR, ORANGE):
        assert not (np.abs(picture.astype(int) - colour) <= 2).all(axis=2).any()


def test_prompts_at_the_border_are_not_cut_off(tmp_path):
    masks = np.zeros((60, 80), dtype=np.uint8)
    masks[0, 0] = masks[-1, -1] = 1
    masks[0, -1] = 2
    image = np.full(masks.shape, 90, dtype=np.uint8)
    picture = draw(tmp_path / "slice.png", image, masks)
    # The star at the corner and the box around everything reach beyond the slice, into the white.
    orange = (np.abs(picture.astype(int) - ORANGE) <= 2).all(axis=2)
    for side in (orange.any(axis=0), orange.any(axis=1)):
        drawn = np.flatnonzero(side)
        assert drawn[0] > 0
        assert drawn[-1] < len(side) - 1


@pytest.mark.parametrize("third", "SIAPLR")
@pytest.mark.parametrize("flips", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("transposed", [False, True])
def test_the_picture_is_upright_from_every_orientation(tmp_path, third, flips, transposed):
    # Rows and columns of an upright picture grow towards these.
    down, across = {"S": "PL", "I": "PL", "A": "IL", "P": "IL", "L": "IP", "R": "IP"}[third]
    opposite = dict(zip("LRPAIS", "RLAPSI", strict=True))
    upright = np.zeros((60, 80), dtype=np.uint8)
    upright[5:15, 10:20] = 1
    codes = [down, across]
    stored = upright
    for axis, flip in enumerate(flips):
        if flip:
            codes[axis] = opposite[codes[axis]]
            stored = np.flip(stored, axis)
    if transposed:
        codes.reverse()
        stored = stored.T
    geometry = geometry_of((*stored.shape, 1), "".join(codes) + third)
    assert geometry.orientation == "".join(codes) + third
    image = np.full(stored.shape, 90, dtype=np.uint8)
    picture = draw(tmp_path / "slice.png", image, stored, geometry)
    assert picture.shape[1] > picture.shape[0]
    row, column = centre_of(picture, GREEN_STAR)
    assert row < 0.35
    assert column < 0.35
    assert (centre_of(picture, ORANGE) < 0.35).all()


def test_pixels_have_the_aspect_of_their_spacing(tmp_path):
    masks = np.zeros((50, 50), dtype=np.uint8)
    masks[20:30, 20:30] = 1
    image = np.full(masks.shape, 90, dtype=np.uint8)
    # One spacing is twice the other.
    geometry = geometry_of((50, 50, 1), "PLS", (0.5, 1, 3))
    np.testing.assert_allclose(sorted(geometry.spacing_mm[:2]), [0.5, 1])
    picture = draw(tmp_path / "slice.png", image, masks, geometry)
    height, width = picture.shape[:2]
    assert max(height, width) / min(height, width) == pytest.approx(2, rel=0.15)


def test_a_real_looking_slice_is_drawn_without_geometry(tmp_path):
    image, masks = chest()
    grey = ((image[:, :, 2] + 1000) / 5).astype(np.uint8)
    picture = draw(tmp_path / "new" / "slice.png", grey, masks[:, :, 2])
    assert picture.shape[0] > 400
