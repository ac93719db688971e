"""The next click, compared with a second implementation that works pixel by pixel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam_lungs.prompts.clicks import Click, add_click, first_prompt, next_click
from sam_lungs.prompts.protocols import Prompts

NONE = np.empty((0, 2), dtype=int)


def drawing(*lines: str) -> np.ndarray:
    return np.array([[character == "#" for character in line] for line in lines])


@st.composite
def pairs_of_masks(draw, size=10) -> tuple[np.ndarray, np.ndarray]:
    """Return a reference and a predicted mask of one shape: noise, or rectangles."""
    shape = draw(st.integers(1, size)), draw(st.integers(1, size))

    def mask() -> np.ndarray:
        if draw(st.booleans()):
            return draw(arrays(bool, shape))
        filled = np.zeros(shape, dtype=bool)
        for _ in range(draw(st.integers(0, 3))):
            row, column = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
            height, width = draw(st.integers(1, 6)), draw(st.integers(1, 6))
            filled[row : row + height, column : column + width] ^= True
        return filled

    return mask(), mask()


@st.composite
def clicked_pixels(draw, shape) -> np.ndarray:
    points = st.tuples(st.integers(0, shape[0] - 1), st.integers(0, shape[1] - 1))
    return np.array(draw(st.lists(points, max_size=20)), dtype=int).reshape(-1, 2)


def regions_by_flooding(pixels: set) -> list[set]:
    """Return the 8-connected regions of a set of (row, column)."""
    left, regions = set(pixels), []
    while left:
        waiting, region = [min(left)], set()
        while waiting:
            row, column = waiting.pop()
            if (row, column) in left:
                left.remove((row, column))
                region.add((row, column))
                waiting += [(row + i, column + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
        regions.append(region)
    return regions


def squared_distance_to_edge(pixel: tuple, region: set, shape: tuple) -> int:
    return min(
        (pixel[0] - row) ** 2 + (pixel[1] - column) ** 2
        for row in range(-1, shape[0] + 1)
        for column in range(-1, shape[1] + 1)
        if (row, column) not in region
    )


def middles(region: set, free: set, shape: tuple) -> set:
    """Return the pixels of `free` that are farthest from the edge of a region."""
    distances = {pixel: squared_distance_to_edge(pixel, region, shape) for pixel in free}
    return {pixel for pixel in free if distances[pixel] == max(distances.values())}


def pixels_of(mask: np.ndarray) -> set:
    return {tuple(pixel) for pixel in np.argwhere(mask).tolist()}


def click_by_the_rules(reference, predicted, clicked_rc):
    clicked = {tuple(point) for point in clicked_rc.tolist()}
    choices = []
    for label, wrong in ((1, reference & ~predicted), (0, predicted & ~reference)):
        for region in regions_by_flooding(pixels_of(wrong)):
            if free := region - clicked:
                choices.append((-len(region), -label, min(free), region))
    if not choices:
        return None
    _, label, _, region = min(choices, key=lambda choice: choice[:3])
    return Click(min(middles(region, region - clicked, reference.shape)), -label)


@given(pairs_of_masks(), st.data())
def test_the_click_is_that_of_a_second_implementation(masks, data):
    clicked_rc = data.draw(clicked_pixels(masks[0].shape))
    assert next_click(*masks, clicked_rc) == click_by_the_rules(*masks, clicked_rc)


@given(pairs_of_masks(size=4))
def test_clicks_on_all_wrong_pixels_come_to_an_end(masks):
    """A model that ignores all clicks is clicked once on each wrong pixel."""
    reference, predicted = masks
    clicked_rc = NONE
    while click := next_click(reference, predicted, clicked_rc):
        clicked_rc = np.concatenate([clicked_rc, [click.point_rc]])
    assert sorted(map(tuple, clicked_rc)) == sorted(map(tuple, np.argwhere(reference != predicted)))


TURNS = {
    "rotated": np.rot90,
    "turned": lambda mask: np.rot90(mask, 2),
    "mirrored": np.fliplr,
    "upside down": np.flipud,
    "transposed": np.transpose,
}


@given(pairs_of_masks(), st.sampled_from(sorted(TURNS)))
def test_a_turned_slice_has_the_turned_click_or_another_one_of_a_tie(masks, name):
    reference, predicted = masks
    regions = [
        *regions_by_flooding(pixels_of(reference & ~predicted)),
        *regions_by_flooding(pixels_of(predicted & ~reference)),
    ]
    tie = np.zeros(reference.shape, dtype=bool)
    for region in regions:
        if len(region) == max(map(len, regions)):
            tie[tuple(zip(*middles(region, region, tie.shape), strict=True))] = True
    turn = TURNS[name]
    click = next_click(turn(reference), turn(predicted))
    assert (click is None) == (not regions)
    assert click is None or turn(tie)[click.point_rc]


@pytest.mark.parametrize(
    ("reference", "predicted", "click"),
    [
        # The middle of a missing square, of one that is too much.
        (drawing(".....", ".###.", ".###.", ".###."), drawing(*["....."] * 4), ((2, 2), 1)),
        (drawing(*["....."] * 4), drawing(".....", ".###.", ".###.", ".###."), ((2, 2), 0)),
        # The image border is an edge: not the corner of the image.
        (drawing("###", "###", "###"), drawing("...", "...", "..."), ((1, 1), 1)),
        # The larger region, although the smaller one is thicker.
        (
            drawing("##########", "..........", "###.......", "###.......", "###......."),
            drawing(*[".........."] * 5),
            ((0, 0), 1),
        ),
        # Pixels that touch at a corner are one region.
        (drawing("#...", ".#..", "...#"), drawing("....", "....", "...."), ((0, 0), 1)),
        (drawing("##..", "....", "..#.", ".#.#"), drawing(*["...."] * 4), ((2, 2), 1)),
        # Missing pixels and pixels that are too many are never one region.
        (drawing("##..."), drawing("..###"), ((0, 2), 0)),
        # Of equally large regions: a missing one before one that is too much, then the first.
        (drawing("...#"), drawing("#..."), ((0, 3), 1)),
        (drawing("#..#"), drawing("...."), ((0, 0), 1)),
    ],
)
def test_clicks_by_hand(reference, predicted, click):
    assert next_click(reference, predicted) == click


def test_a_clicked_pixel_is_not_clicked_again():
    reference, predicted = drawing("###.#"), drawing(".....")
    clicks = [(0, 0), (0, 1), (0, 2), (0, 4), None]
    for number, expected in enumerate(clicks):
        clicked_rc = np.array(clicks[:number], dtype=int).reshape(-1, 2)
        click = next_click(reference, predicted, clicked_rc)
        assert click == (expected and (expected, 1))


def test_added_clicks_come_last():
    prompts = Prompts(NONE, np.empty(0, dtype=int), np.array([1, 2, 3, 4]))
    prompts = add_click(add_click(prompts, Click((5, 6), 1)), Click((7, 8), 0))
    assert prompts.points_rc.tolist() == [[5, 6], [7, 8]]
    assert prompts.labels.tolist() == [1, 0]
    assert prompts.box_rc.tolist() == [1, 2, 3, 4]
    assert (prompts.points_rc.dtype, prompts.labels.dtype) == (np.int64, np.int64)


def test_a_user_starts_with_the_first_positive_point_or_with_the_box():
    box_rc = np.array([1, 2, 3, 4])
    points = Prompts(np.array([[9, 9], [5, 6], [7, 8]]), np.array([0, 1, 1]), box_rc)
    start = first_prompt(points)
    assert (start.points_rc.tolist(), start.labels.tolist(), start.box_rc) == ([[5, 6]], [1], None)
    start = first_prompt(Prompts(np.array([[9, 9]]), np.array([0]), box_rc))
    assert (start.points_rc.shape, start.labels.tolist()) == ((0, 2), [])
    assert start.box_rc.tolist() == box_rc.tolist()
