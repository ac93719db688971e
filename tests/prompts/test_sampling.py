import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam_lungs.prompts.perturb import rng_for
from sam_lungs.prompts.protocols import PROTOCOLS
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.prompts.sampling import RULES, sample_points, spread_points, surroundings

OBJECTS = ("apart", "together")


def drawing(*lines: str) -> np.ndarray:
    return np.array([[int(character.replace(".", "0")) for character in line] for line in lines])


@st.composite
def label_masks(draw) -> np.ndarray:
    shape = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    masks = draw(arrays(np.uint8, shape, elements=st.sampled_from([0, 0, 1, 4])))
    if not masks.any():
        masks[-1, 0] = 1
    return masks


@given(
    label_masks(),
    st.integers(1, 10),
    st.sampled_from(sorted(RULES)),
    st.sampled_from(OBJECTS),
    st.integers(0, 5),
)
def test_points_lie_where_their_label_says_and_none_is_there_twice(masks, n, rule, objects, margin):
    several = sample_points(masks, n, rule, rng_for("test"), objects, margin)
    labels = np.unique(masks[masks > 0])
    groups = [[label] for label in labels] if objects == "apart" else [labels]
    for prompts, group in zip(several, groups, strict=True):
        box = make_prompts(np.where(np.isin(masks, group), masks, 0), PROTOCOLS["box_only"])
        assert prompts.box_rc.tolist() == box.box_rc.tolist()
        assert len(set(map(tuple, prompts.points_rc))) == len(prompts.points_rc)
        at = masks[tuple(prompts.points_rc.T)]
        assert (at[prompts.labels == 0] == 0).all()
        counts = [min(n, np.count_nonzero(masks == label)) for label in group]
        assert at[prompts.labels == 1].tolist() == np.repeat(group, counts).tolist()
        assert sorted(prompts.labels, reverse=True) == prompts.labels.tolist()
        top, left, bottom, right = prompts.box_rc + margin * np.array([-1, -1, 1, 1])
        rows, columns = np.indices(masks.shape)
        near = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
        free = near & (masks == 0)
        assert all(free[tuple(point)] for point in prompts.points_rc[prompts.labels == 0])
        assert np.count_nonzero(prompts.labels == 0) == min(n, np.count_nonzero(free))


@given(label_masks(), st.sampled_from(sorted(RULES)), st.sampled_from(OBJECTS))
def test_more_points_begin_with_the_fewer_ones(masks, rule, objects):
    few, many = (sample_points(masks, n, rule, rng_for(7), objects, 2) for n in (2, 5))
    for first, second in zip(few, many, strict=True):
        for value in (0, 1) if objects == "apart" else (0,):
            shorter = first.points_rc[first.labels == value].tolist()
            longer = second.points_rc[second.labels == value].tolist()
            assert longer[: len(shorter)] == shorter


def spread_by_brute_force(region: np.ndarray, n: int) -> list:
    inside = [tuple(pixel) for pixel in np.argwhere(region).tolist()]
    rows, columns = region.shape
    blocked = [
        (row, column)
        for row in range(-1, rows + 1)
        for column in range(-1, columns + 1)
        if (row, column) not in inside
    ]
    chosen = []
    while len(chosen) < min(n, len(inside)):
        distances = [
            min((row - r) ** 2 + (column - c) ** 2 for r, c in blocked + chosen)
            for row, column in inside
        ]
        chosen.append(inside[distances.index(max(distances))])
    return chosen


@given(arrays(bool, st.tuples(st.integers(1, 7), st.integers(1, 7))), st.integers(1, 10))
def test_spread_points_are_those_of_a_second_implementation(region, n):
    points = spread_points(region, n, rng_for())
    assert [tuple(point) for point in points.tolist()] == spread_by_brute_force(region, n)


def test_spread_points_by_hand():
    region = np.ones((5, 11), dtype=bool)
    assert spread_points(region, 4, rng_for()).tolist() == [[2, 2], [2, 5], [2, 8], [1, 1]]


def test_random_points_are_uniform():
    masks = np.array([[1, 1, 1, 1, 0]])
    counts = np.zeros(5)
    for repeat in range(400):
        (prompts,) = sample_points(masks, 1, "random", rng_for(repeat), "apart", 1)
        counts[prompts.points_rc[0, 1]] += 1
        assert prompts.points_rc[1].tolist() == [0, 4]
    assert counts[4] == 0
    np.testing.assert_allclose(counts[:4], 100, atol=30)


def test_other_repeats_have_other_points():
    masks = np.ones((30, 30), dtype=int)
    drawn = [sample_points(masks, 3, "random", rng_for(i), "apart", 2)[0] for i in (0, 1, 0)]
    assert drawn[0].points_rc.tolist() == drawn[2].points_rc.tolist()
    assert drawn[0].points_rc.tolist() != drawn[1].points_rc.tolist()


@pytest.mark.parametrize("rule", RULES)
def test_negative_points_of_one_object_avoid_the_others(rule):
    masks = drawing("11222", "11222")
    for prompts in sample_points(masks, 5, rule, rng_for(0), "apart", 9):
        assert 0 not in prompts.labels


def test_the_surroundings_stop_at_the_image_border():
    mask = drawing("....", ".1..", "....") > 0
    expected = drawing("111.", "1.1.", "111.") > 0
    box_rc = np.array([1, 1, 2, 2])
    np.testing.assert_array_equal(surroundings(mask, box_rc, 1), expected)
    np.testing.assert_array_equal(surroundings(mask, box_rc, 99), ~mask)
    assert not surroundings(mask, box_rc, 0).any()
