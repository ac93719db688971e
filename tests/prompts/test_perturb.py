import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_lungs.prompts.perturb import jitter, rng_for
from sam_lungs.prompts.protocols import Prompts


@st.composite
def prompts_in_a_slice(draw) -> tuple[Prompts, tuple[int, int]]:
    """Return prompts of 0 to 4 points, with or without a box, and the size of their slice."""
    rows, columns = draw(st.integers(1, 30)), draw(st.integers(1, 30))
    points = draw(
        st.lists(st.tuples(st.integers(0, rows - 1), st.integers(0, columns - 1)), max_size=4)
    )
    box_rc = None
    if draw(st.booleans()):
        top, left = draw(st.integers(0, rows - 1)), draw(st.integers(0, columns - 1))
        bottom, right = draw(st.integers(top + 1, rows)), draw(st.integers(left + 1, columns))
        box_rc = np.array([top, left, bottom, right])
    labels = draw(st.lists(st.integers(0, 1), min_size=len(points), max_size=len(points)))
    points_rc = np.array(points, dtype=np.int64).reshape(-1, 2)
    return Prompts(points_rc, np.array(labels, dtype=np.int64), box_rc), (rows, columns)


def same(first: Prompts, second: Prompts) -> bool:
    return all(
        np.array_equal(getattr(first, name), getattr(second, name))
        for name in ("points_rc", "labels", "box_rc")
    )


@given(prompts_in_a_slice(), st.integers(0, 9))
def test_sigma_0_returns_the_same_prompts(given_prompts, seed):
    prompts, size_rc = given_prompts
    moved = jitter(prompts, (0, 0), rng_for(seed), size_rc)
    assert same(moved, prompts)
    assert moved.points_rc.dtype == prompts.points_rc.dtype


@given(prompts_in_a_slice(), st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), st.integers(0, 1000))
def test_moved_prompts_stay_in_the_slice_and_a_box_stays_a_box(given_prompts, sigma_px_rc, seed):
    prompts, size_rc = given_prompts
    moved = jitter(prompts, sigma_px_rc, rng_for(seed), size_rc)
    assert moved.points_rc.shape == prompts.points_rc.shape
    assert (moved.points_rc >= 0).all()
    assert (moved.points_rc < size_rc).all()
    assert moved.labels is prompts.labels
    assert (moved.box_rc is None) == (prompts.box_rc is None)
    if moved.box_rc is not None:
        assert (moved.box_rc[:2] >= 0).all()
        assert (moved.box_rc[:2] < moved.box_rc[2:]).all()
        assert (moved.box_rc[2:] <= size_rc).all()
    assert same(moved, jitter(prompts, sigma_px_rc, rng_for(seed), size_rc))


def test_the_noise_has_the_sigma_of_its_axis_and_each_coordinate_its_own():
    far = np.full((2000, 2), 5000)
    prompts = Prompts(far, np.ones(2000, dtype=int), np.array([4000, 4000, 6000, 6000]))
    moved = jitter(prompts, (20, 5), rng_for("noise"), (10_000, 10_000))
    noise_rc = moved.points_rc - far
    np.testing.assert_allclose(noise_rc.std(axis=0), (20, 5), rtol=0.05)
    np.testing.assert_allclose(noise_rc.mean(axis=0), 0, atol=1.5)
    assert abs(np.corrcoef(noise_rc.T)[0, 1]) < 0.1
    boxes = np.array(
        [
            jitter(prompts, (20, 5), rng_for("box", repeat), (10_000, 10_000)).box_rc
            for repeat in range(500)
        ]
    )
    np.testing.assert_allclose(boxes.std(axis=0), (20, 5, 20, 5), rtol=0.15)
    assert np.abs(np.corrcoef(boxes.T) - np.eye(4)).max() < 0.2


def test_one_axis_moves_alone():
    prompts = Prompts(np.array([[50, 50]]), np.array([1]), np.array([20, 20, 80, 80]))
    moved = jitter(prompts, (0, 10), rng_for(0), (100, 100))
    assert moved.points_rc[0, 0] == 50
    assert moved.points_rc[0, 1] != 50
    assert moved.box_rc[[0, 2]].tolist() == [20, 80]


def test_the_same_generator_gives_the_same_directions_for_each_sigma():
    prompts = Prompts(np.array([[500, 500]]), np.array([1]), None)
    steps_rc = [
        jitter(prompts, (sigma, sigma), rng_for("case", 3), (1000, 1000)).points_rc[0] - 500
        for sigma in (10, 100)
    ]
    np.testing.assert_allclose(steps_rc[0] * 10, steps_rc[1], atol=6)


class Fixed:
    """A generator of given numbers."""

    def __init__(self, *numbers: float) -> None:
        self.numbers = numbers

    def standard_normal(self, shape: tuple[int, int]) -> np.ndarray:
        return np.array(self.numbers, dtype=float).reshape(shape)


@pytest.mark.parametrize(
    ("noise", "box_rc"),
    [
        ((1, 2, 3, 4), [3, 4, 9, 10]),
        ((-9, -9, 9, 9), [0, 0, 10, 12]),  # stops at the border
        ((5, 0, -1, 0), [5, 2, 7, 6]),  # edges that pass each other are swapped
        ((4, 0, 0, 0), [6, 2, 7, 6]),  # edges on each other: one pixel
        ((30, 30, 20, 20), [9, 11, 10, 12]),  # outside: the nearest pixel of the slice
        ((-30, -30, -30, -30), [0, 0, 1, 1]),
        ((0.4, 0.6, -0.4, -0.6), [2, 3, 6, 5]),
    ],
)
def test_boxes_by_hand(noise, box_rc):
    prompts = Prompts(np.array([[9, 0]]), np.array([1]), np.array([2, 2, 6, 6]))
    moved = jitter(prompts, (1, 1), Fixed(*noise, 1, -1), (10, 12))
    assert moved.box_rc.tolist() == box_rc
    assert moved.points_rc.tolist() == [[9, 0]]


def test_generators_depend_on_all_keys_and_on_nothing_else():
    keys = [("a", 1), ("a", 2), ("b", 1), (1, "a"), ("a", 1.0), ("a", "1"), ("a1",), ()]
    first = [rng_for(*each).random() for each in keys]
    assert len(set(first)) == len(keys)
    assert [rng_for(*each).random() for each in reversed(keys)] == first[::-1]


def test_generators_are_the_same_in_each_process():
    # Written down: Python's own hash of a string differs from process to process.
    assert rng_for("case", 3, "paper", 0).integers(0, 1000, 4).tolist() == [759, 612, 80, 773]
