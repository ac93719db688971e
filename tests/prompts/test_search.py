import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_lungs.prompts.perturb import rng_for
from sam_lungs.prompts.protocols import PROTOCOLS, Prompts
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.prompts.search import search_best

ROWS, COLUMNS = np.indices((40, 60))
DISCS = (np.hypot(ROWS - 20, COLUMNS - 15) < 9) | (np.hypot(ROWS - 20, COLUMNS - 42) < 11)
START = make_prompts(DISCS.astype(int), PROTOCOLS["paper"])


class NearestPoint:
    """Dice of a mask of the pixels in the box whose nearest point is positive."""

    def __init__(self, mask: np.ndarray = DISCS) -> None:
        self.mask, self.sizes, self.asked = mask, [], []

    def __call__(self, several: list[Prompts]) -> np.ndarray:
        self.sizes.append(len(several))
        self.asked += several
        return np.array([self.dice(prompts) for prompts in several])

    def dice(self, prompts: Prompts) -> float:
        rows, columns = np.indices(self.mask.shape)
        predicted = np.ones(self.mask.shape, dtype=bool)
        if len(prompts.labels):
            distances = [
                np.hypot(rows - row, columns - column) for row, column in prompts.points_rc
            ]
            predicted = prompts.labels[np.argmin(distances, axis=0)] == 1
        if prompts.box_rc is not None:
            top, left, bottom, right = prompts.box_rc
            predicted &= (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        return float(2 * (predicted & self.mask).sum() / (predicted.sum() + self.mask.sum()))


@st.composite
def small_masks(draw) -> np.ndarray:
    mask = np.zeros((draw(st.integers(1, 6)), draw(st.integers(1, 6))), dtype=bool)
    top, left = (draw(st.integers(0, size - 1)) for size in mask.shape)
    mask[top : top + draw(st.integers(1, 8)), left : left + draw(st.integers(1, 8))] = True
    return mask


@given(
    small_masks(),
    st.sampled_from(sorted(PROTOCOLS)),
    st.integers(1, 3),
    st.integers(0, 2),
    st.integers(1, 20),
    st.integers(1, 7),
    st.integers(0, 2),
)
def test_what_holds_for_every_search(mask, name, positives, negatives, budget, population, margin):
    start = make_prompts(mask.astype(int), PROTOCOLS[name])
    score = NearestPoint(mask)
    most = positives, negatives
    found = search_best(score, start, mask, most, budget, rng_for(1), margin, population)
    assert sum(score.sizes) == len(found.values) == budget
    assert set(score.sizes[:-1]) <= {population}
    assert score.asked[0] is start
    assert found.value == max(found.values) == score.dice(found.prompts) >= found.values[0]
    limits = [max(most[0], sum(start.labels == 1)), max(most[1], sum(start.labels == 0))]
    for prompts in score.asked:
        assert sum(prompts.labels == 1) <= limits[0]
        assert sum(prompts.labels == 0) <= limits[1]
        assert len(prompts.points_rc) == len(prompts.labels)
        assert (prompts.points_rc >= 0).all()
        assert (prompts.points_rc < mask.shape).all()
        assert (prompts.box_rc is None) == (start.box_rc is None)
        if prompts.box_rc is None:
            assert 1 in prompts.labels
        else:
            assert (prompts.box_rc[:2] < prompts.box_rc[2:]).all()
            assert (prompts.box_rc[:2] >= 0).all()
            assert (prompts.box_rc[2:] <= mask.shape).all()


def test_it_finds_much_better_prompts():
    found = search_best(NearestPoint(), START, DISCS, (4, 4), 600, rng_for(0), 8)
    assert NearestPoint().dice(START) == found.values[0] < 0.8
    assert found.value > 0.9


def test_a_longer_search_begins_with_the_shorter_one():
    short, long = (
        search_best(NearestPoint(), START, DISCS, (3, 3), budget, rng_for(2), 8, 5)
        for budget in (60, 140)
    )
    assert long.values[:60].tolist() == short.values.tolist()
    assert long.value >= short.value


def test_the_same_seed_gives_the_same_search():
    first, second, other = (
        search_best(NearestPoint(), START, DISCS, (3, 3), 50, rng_for(seed), 8) for seed in "aab"
    )
    assert first.values.tolist() == second.values.tolist()
    assert first.prompts.points_rc.tolist() == second.prompts.points_rc.tolist()
    assert first.values.tolist() != other.values.tolist()


def test_the_start_stays_where_nothing_is_better():
    found = search_best(
        lambda prompts: np.zeros(len(prompts)), START, DISCS, (3, 3), 90, rng_for(0), 8
    )
    assert found.prompts is START
    assert found.value == 0


def test_a_start_that_is_the_best_is_returned():
    def score(prompts):
        return np.array([float(each is START) for each in prompts])

    found = search_best(score, START, DISCS, (3, 3), 90, rng_for(0), 8)
    assert found.prompts is START


@pytest.mark.parametrize("budget", [1, 2])
def test_a_budget_of_one_scores_the_start_only(budget):
    score = NearestPoint()
    found = search_best(score, START, DISCS, (3, 3), budget, rng_for(0), 8)
    assert score.sizes == [budget]
    assert found.values[0] == score.dice(START)


def test_no_points_are_added_where_none_are_allowed():
    score = NearestPoint()
    start = make_prompts(DISCS.astype(int), PROTOCOLS["box_only"])
    search_best(score, start, DISCS, (0, 0), 300, rng_for(0), 8)
    assert all(len(prompts.labels) == 0 for prompts in score.asked)


def test_the_step_starts_again_where_nothing_is_better():
    """Far shifts, near ones, and far ones again."""
    sizes = []

    def score(several: list[Prompts]) -> np.ndarray:
        sizes.append(max(np.abs(prompts.box_rc - START.box_rc).max() for prompts in several))
        return np.zeros(len(several))

    search_best(score, START, DISCS, (0, 0), 64 * 12, rng_for(0), 8, 64)
    # 8.4, 8.4 again because the start is better than nothing, 4.2, 2.1, 1.05, and 8.4 again.
    assert len(sizes) == 12
    near, far = [sizes[4], sizes[8]], [sizes[1], sizes[5], sizes[9]]
    assert max(near) < 6 < 10 < min(far)
