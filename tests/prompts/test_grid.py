import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_lungs.prompts.grid import click_alone, click_grid, with_click
from sam_lungs.prompts.protocols import Prompts


@st.composite
def boxes_in_slices(draw) -> tuple[np.ndarray, tuple[int, int]]:
    size_rc = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    first = [draw(st.integers(0, size - 1)) for size in size_rc]
    end = [draw(st.integers(low + 1, size)) for low, size in zip(first, size_rc, strict=True)]
    return np.array([*first, *end]), size_rc


steps, margins = st.integers(1, 9), st.integers(0, 9)


@given(boxes_in_slices(), margins, steps)
def test_there_is_a_position_for_each_block_that_meets_the_box_and_margin(given_box, margin, step):
    box_rc, size_rc = given_box
    top, left, bottom, right = box_rc + np.array([-margin, -margin, margin, margin])
    blocks = sorted(
        {
            (row // step, column // step)
            for row in range(size_rc[0])
            for column in range(size_rc[1])
            if top <= row < bottom and left <= column < right
        }
    )
    positions = click_grid(box_rc, margin, step, size_rc)
    assert [(row // step, column // step) for row, column in positions.tolist()] == blocks
    assert (positions < size_rc).all()


@given(boxes_in_slices(), boxes_in_slices(), steps)
def test_positions_do_not_depend_on_the_box(one, other, step):
    size_rc = np.minimum(one[1], other[1])
    everywhere = click_grid(np.array([0, 0, *size_rc]), 0, step, size_rc).tolist()
    for box_rc, _ in (one, other):
        inside = np.minimum(box_rc, [*(size_rc - 1), *size_rc])
        assert all(point in everywhere for point in click_grid(inside, 0, step, size_rc).tolist())


@given(boxes_in_slices(), margins, st.sampled_from([1, 3, 5]), st.integers(0, 3))
def test_a_turned_slice_of_whole_blocks_has_the_turned_grid(given_box, margin, step, turns):
    box_rc, blocks_rc = given_box
    size_rc = np.multiply(blocks_rc, step)
    box_rc = box_rc * step
    there = np.zeros(size_rc, dtype=bool)
    there[tuple(click_grid(box_rc, margin, step, size_rc).T)] = True
    inside = np.zeros(size_rc, dtype=bool)
    inside[box_rc[0] : box_rc[2], box_rc[1] : box_rc[3]] = True
    for turn in (lambda array: np.rot90(array, turns), np.fliplr):
        pixels_rc = np.argwhere(turn(inside))
        turned_box = np.concatenate([pixels_rc.min(axis=0), pixels_rc.max(axis=0) + 1])
        positions = click_grid(turned_box, margin, step, turn(there).shape)
        np.testing.assert_array_equal(np.argwhere(turn(there)), positions)


@pytest.mark.parametrize(
    ("box_rc", "margin", "step", "positions"),
    [
        ((4, 4, 6, 6), 0, 1, [(4, 4), (4, 5), (5, 4), (5, 5)]),
        ((4, 4, 8, 8), 0, 4, [(6, 6)]),
        ((4, 4, 8, 9), 0, 4, [(6, 6), (6, 9)]),  # the last block has only 2 columns: 8 and 9
        ((4, 4, 8, 8), 1, 4, [(r, c) for r in (2, 6, 9) for c in (2, 6, 9)]),
        ((0, 0, 1, 1), 0, 8, [(4, 4)]),
    ],
)
def test_grids_by_hand(box_rc, margin, step, positions):
    assert click_grid(np.array(box_rc), margin, step, (10, 10)).tolist() == [
        list(each) for each in positions
    ]


BOX = np.array([1, 2, 3, 4])
PROMPTS = Prompts(np.array([[1, 1], [2, 2], [3, 3]]), np.array([1, 1, 0]), BOX)
NEGATIVE = Prompts(np.array([[3, 3]]), np.array([0]), BOX)
BOX_ONLY = Prompts(np.empty((0, 2), dtype=int), np.empty(0, dtype=int), BOX)


@pytest.mark.parametrize(
    ("prompts", "label", "replaced", "points", "labels"),
    [
        (PROMPTS, 1, None, [[9, 8], [3, 3]], [1, 0]),
        (PROMPTS, 0, None, [[1, 1], [2, 2], [9, 8]], [1, 1, 0]),
        (PROMPTS, 1, [1], [[1, 1], [9, 8], [3, 3]], [1, 1, 0]),
        (PROMPTS, 1, [0], [[9, 8], [2, 2], [3, 3]], [1, 1, 0]),
        (NEGATIVE, 1, None, [[9, 8], [3, 3]], [1, 0]),
        (BOX_ONLY, 1, None, [[9, 8]], [1]),
        (BOX_ONLY, 0, None, [[9, 8]], [0]),
    ],
)
def test_a_click_takes_the_place_of_others(prompts, label, replaced, points, labels):
    clicked = with_click(prompts, np.array([9, 8]), label, replaced)
    assert clicked.points_rc.tolist() == points
    assert clicked.labels.tolist() == labels
    assert clicked.box_rc is BOX
    assert (clicked.points_rc.dtype, clicked.labels.dtype) == (np.int64, np.int64)


def test_a_negative_click_without_one_comes_last():
    positive = Prompts(PROMPTS.points_rc[:2], PROMPTS.labels[:2], None)
    clicked = with_click(positive, np.array([9, 8]), 0)
    assert clicked.points_rc.tolist() == [[1, 1], [2, 2], [9, 8]]
    assert clicked.labels.tolist() == [1, 1, 0]


def test_the_protocols_own_point_gives_the_protocol():
    clicked = with_click(PROMPTS, PROMPTS.points_rc[1], replaced=[1])
    np.testing.assert_array_equal(clicked.points_rc, PROMPTS.points_rc)
    np.testing.assert_array_equal(clicked.labels, PROMPTS.labels)


def test_a_click_alone():
    prompts = click_alone(np.array([5, 6]))
    assert (prompts.points_rc.tolist(), prompts.labels.tolist()) == ([[5, 6]], [1])
    assert prompts.box_rc is None
    assert click_alone(np.array([5, 6]), 0).labels.tolist() == [0]
