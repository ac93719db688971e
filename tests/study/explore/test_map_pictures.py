"""Pictures of maps: places and colours, found in the PNG."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from matplotlib import colormaps
from nibabel import orientations

from sam_lungs.data.volume import Geometry
from sam_lungs.study.explore.pictures import COLOURS, save_maps
from sam_lungs.study.explore.results import ClickMap

SHAPE = (43, 64)
RED = (255, 0, 0)


def geometry_of(codes: str) -> Geometry:
    """The geometry of an array whose rows, columns and slices grow towards `codes`."""
    turns = orientations.ornt_transform(
        orientations.axcodes2ornt("RAS"), orientations.axcodes2ornt(codes)
    )
    affine = orientations.inv_ornt_aff(turns, (100, 100, 100)) @ np.diag([1, 1.5, 5, 1])
    return Geometry(affine, (*SHAPE, 1), np.array([[0, 1], [1, 1], [2, 1]]))


def draw(path: Path, image: np.ndarray, click_map: ClickMap, geometry: Geometry | None):
    """Return the picture of one map, RGB."""
    save_maps(path, image, {"all": np.zeros(SHAPE, bool)}, {"all": click_map}, 8, geometry)
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def box_of(picture: np.ndarray, colour: tuple[int, ...]) -> np.ndarray:
    """First and last row and column of the pixels of a colour, without the colour bar."""
    near = (np.abs(picture.astype(int) - colour) <= 8).all(axis=2)
    near[:, int(0.7 * picture.shape[1]) :] = False
    places = np.argwhere(near)
    return np.array([places.min(axis=0), places.max(axis=0)])


@pytest.mark.parametrize("codes", [None, "PLS", "LAS", "IRA"])
def test_a_block_is_drawn_over_its_pixels(tmp_path, codes):
    geometry = codes and geometry_of(codes)
    # The last row of blocks is cut to three rows.
    block = np.s_[40:43, 16:24]
    marked = np.zeros((*SHAPE, 3), np.uint8)
    marked[block] = RED
    elsewhere = ClickMap(np.array([[0.5]]), np.array([4]), np.array([60]))
    here = ClickMap(np.array([[1.0]]), np.array([42]), np.array([20]))
    expected = box_of(draw(tmp_path / "image.png", marked, elsewhere, geometry), RED)
    best = tuple(np.multiply(colormaps[COLOURS](1.0)[:3], 255))
    found = box_of(draw(tmp_path / "map.png", np.zeros_like(marked), here, geometry), best)
    np.testing.assert_allclose(found, expected, atol=1)


def test_colours_are_those_of_the_scale_from_0_to_1(tmp_path):
    quarter = ClickMap(np.full((3, 4), 0.25), np.array([4, 12, 20]), np.array([4, 12, 20, 28]))
    picture = draw(tmp_path / "map.png", np.zeros((*SHAPE, 3), np.uint8), quarter, None)
    (top, left), (bottom, right) = box_of(picture, np.multiply(colormaps[COLOURS](0.25)[:3], 255))
    assert (right - left) / (bottom - top) == pytest.approx(4 / 3, rel=0.02)
