"""Prompts of a volume, compared with a second implementation that works slice by slice."""

from dataclasses import replace
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_lungs.prompts.protocols import PROTOCOLS, PromptProtocol, Prompts
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.prompts.volume import VolumePrompts

ROWS, COLUMNS = 9, 12
OBJECTS = ("together", "apart")


@st.composite
def volumes(draw) -> np.ndarray:
    """Return masks of labels that begin, end, move and have gaps."""
    count = draw(st.integers(1, 14))
    masks = np.zeros((ROWS, COLUMNS, count), dtype=np.uint8)
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    for label in draw(st.lists(st.sampled_from([1, 2, 7]), min_size=1, unique=True)):
        first, last = sorted(rng.integers(0, count, 2))
        for index in range(first, last + 1):
            if rng.random() < 0.8:
                for _ in range(rng.integers(1, 3)):
                    row, column = rng.integers(0, ROWS), rng.integers(0, COLUMNS)
                    rows, columns = slice(row, row + rng.integers(1, 5)), slice(column, column + 3)
                    masks[rows, columns, index] = label
    if not masks.any():
        masks[draw(st.integers(0, ROWS - 1)), 3, draw(st.integers(0, count - 1))] = 1
    return masks


def volume_prompts(masks: np.ndarray, *protocol: object) -> VolumePrompts:
    labels = np.unique(masks[masks > 0]).tolist()
    slices_of = {label: np.flatnonzero((masks == label).any((0, 1))).tolist() for label in labels}
    return VolumePrompts(masks, slices_of, *protocol)


EVERY = st.integers(1, 20)
NAMES = st.sampled_from(sorted(PROTOCOLS))


def as_lists(prompts: Prompts) -> tuple:
    box_rc = None if prompts.box_rc is None else prompts.box_rc.tolist()
    return prompts.points_rc.tolist(), prompts.labels.tolist(), box_rc


def assert_same(some: list[Prompts], others: list[Prompts]) -> None:
    assert [as_lists(each) for each in some] == [as_lists(each) for each in others]


def rounded(low: int, up: int, share: Fraction) -> int:
    return floor(low + (up - low) * share + Fraction(1, 2))


def of_object_by_the_rules(
    masks: np.ndarray, protocol: PromptProtocol, every: int
) -> dict[int, tuple[tuple, bool]]:
    """Return the prompts of the slices of one object as lists, and whether they are drawn."""
    with_object = [index for index in range(masks.shape[2]) if masks[:, :, index].any()]
    drawn = {index for place, index in enumerate(with_object) if place % every == 0}
    drawn.add(with_object[-1])
    for label in set(masks[masks != 0].tolist()):
        of_label = [index for index in with_object if (masks[:, :, index] == label).any()]
        drawn |= {min(of_label), max(of_label)}
    prompts = {}
    for index in range(with_object[0], with_object[-1] + 1):
        if index in drawn:
            prompts[index] = as_lists(make_prompts(masks[:, :, index], protocol)), True
        elif every > 1:
            lower = max(each for each in drawn if each < index)
            upper = min(each for each in drawn if each > index)
            share = Fraction(index - lower, upper - lower)
            ends = masks[:, :, lower], masks[:, :, upper]
            prompts[index] = between_by_the_rules(ends, protocol, share), False
    return prompts


def between_by_the_rules(
    ends: tuple[np.ndarray, np.ndarray], protocol: PromptProtocol, share: Fraction
) -> tuple:
    nearer = ends[0] if share <= Fraction(1, 2) else ends[1]
    positive = replace(protocol, negative="none", box=False)

    def points_of(masks: np.ndarray, label: int) -> list:
        alone = np.where(masks == label, masks, 0)
        return make_prompts(alone, positive).points_rc.tolist() if alone.any() else []

    def move(some: list, others: list) -> list:
        return [
            [rounded(low, up, share) for low, up in zip(point, other, strict=True)]
            for point, other in zip(some, others, strict=True)
        ]

    points = []
    for label in (1, 2, 7):
        low, up = (points_of(each, label) for each in ends)
        if low and up:
            points += move(low, up) if len(low) == len(up) else points_of(nearer, label)
    both = [make_prompts(each, protocol) for each in ends]
    box = None
    if protocol.box:
        (box,) = move([both[0].box_rc.tolist()], [both[1].box_rc.tolist()])
    if not points and not box:
        points = make_prompts(nearer, positive).points_rc.tolist()
    negatives = move(*(each.points_rc[each.labels == 0].tolist() for each in both))
    return points + negatives, [1] * len(points) + [0] * len(negatives), box


@given(volumes(), NAMES, EVERY, st.sampled_from(OBJECTS))
def test_prompts_follow_the_rules(masks, name, every, objects):
    protocol = replace(PROTOCOLS[name], every=every)
    alone = [masks]
    if objects == "apart":
        alone = [np.where(masks == label, masks, 0) for label in np.unique(masks[masks > 0])]
    expected = [of_object_by_the_rules(each, protocol, every) for each in alone]
    prompts = volume_prompts(masks, protocol, objects)
    assert list(prompts.sources) == sorted(set().union(*expected))
    for index, source in prompts.sources.items():
        assert source == index
        found = prompts.at(index)
        of_slice = [each[index] for each in expected if index in each]
        assert [as_lists(each) for each in found.united] == [each for each, _ in of_slice]
        assert found.interactions == sum(
            len(points) + 2 * (box is not None)
            for (points, _, box), is_drawn in of_slice
            if is_drawn
        )


@given(volumes(), NAMES, st.sampled_from(OBJECTS))
def test_each_slice_with_an_object_is_prompted_alone_when_all_are_drawn(masks, name, objects):
    prompts = volume_prompts(masks, PROTOCOLS[name], objects)
    assert list(prompts.sources) == np.flatnonzero(masks.any((0, 1))).tolist()
    for index in prompts.sources:
        shown = [masks[:, :, index]]
        if objects == "apart":
            labels = np.unique(shown[0][shown[0] > 0])
            shown = [np.where(shown[0] == label, 7, 0) for label in labels]
        assert_same(
            prompts.at(index).united, [make_prompts(each, PROTOCOLS[name]) for each in shown]
        )


@given(volumes(), NAMES, EVERY, st.sampled_from(OBJECTS))
def test_prompts_lie_in_the_slice_and_there_is_a_point_or_a_box(masks, name, every, objects):
    prompts = volume_prompts(masks, replace(PROTOCOLS[name], every=every), objects)
    assert set(np.flatnonzero(masks.any((0, 1)))) <= prompts.sources.keys()
    for index in prompts.sources:
        united = prompts.at(index).united
        assert united
        for each in united:
            assert each.points_rc.dtype == each.labels.dtype == np.int64
            assert (each.points_rc >= 0).all()
            assert (each.points_rc < (ROWS, COLUMNS)).all()
            if each.box_rc is None:
                assert each.labels.any()
            else:
                top, left, bottom, right = each.box_rc
                assert 0 <= top < bottom <= ROWS
                assert 0 <= left < right <= COLUMNS


@given(volumes(), st.sampled_from(["paper", "points", "box_only"]), st.sampled_from(OBJECTS))
def test_a_volume_upside_down_has_the_same_prompts_upside_down(masks, name, objects):
    """With one point per label; only first and last slices are drawn, so K counts from no end."""
    protocol = replace(PROTOCOLS[name], every=1000)
    prompts = volume_prompts(masks, protocol, objects)
    mirrored = volume_prompts(masks[:, :, ::-1], protocol, objects)
    last = masks.shape[2] - 1
    assert [last - index for index in mirrored.sources][::-1] == list(prompts.sources)
    for index in prompts.sources:
        some, others = prompts.at(index), mirrored.at(last - index)
        assert some.interactions == others.interactions
        if name != "points" or all(_has_common_label(masks, index)):
            assert_same(some.united, others.united)


def _has_common_label(masks: np.ndarray, index: int) -> list[bool]:
    """Without one, a slice in the middle has the points of the lower slice."""
    firsts_and_lasts = set()
    for label in np.unique(masks[masks > 0]):
        of_label = np.flatnonzero((masks == label).any((0, 1)))
        firsts_and_lasts |= {of_label[0], of_label[-1]}
    lower = max((each for each in firsts_and_lasts if each <= index), default=index)
    upper = min((each for each in firsts_and_lasts if each >= index), default=index)
    return [bool({*masks[..., lower].flat} & {*masks[..., upper].flat} - {0})]


@given(volumes(), EVERY, st.sampled_from(OBJECTS))
def test_other_slices_have_the_prompts_of_the_nearest_one(masks, every, objects):
    protocol = PromptProtocol(every=every)
    own = volume_prompts(masks, protocol, objects)
    nearest = volume_prompts(masks, protocol, objects, "nearest")
    assert list(nearest.sources) == list(range(masks.shape[2]))
    for index, source in nearest.sources.items():
        assert source == min(own.sources, key=lambda each: (abs(each - index), each))
        if source != index:
            found, copied = nearest.at(index), own.at(source)
            assert_same(found.united, copied.united)
            assert found.interactions == 0 < copied.interactions


def box(rows: slice, columns: slice) -> np.ndarray:
    masks = np.zeros((ROWS, COLUMNS), dtype=np.uint8)
    masks[rows, columns] = 1
    return masks


def test_prompts_by_hand():
    """From one pixel at (0, 0) to a block of 3 x 3 around (4, 8), with two slices between."""
    empty = np.zeros((ROWS, COLUMNS), dtype=np.uint8)
    ends = box(slice(0, 1), slice(0, 1)), box(slice(3, 6), slice(7, 10))
    prompts = volume_prompts(
        np.stack([empty, ends[0], empty, empty, ends[1], empty], axis=2),
        PromptProtocol(every=2),
        "together",
    )
    assert list(prompts.sources) == [1, 2, 3, 4]
    # Rows: 0, 4/3, 8/3, 4; columns: 0, 8/3, 16/3, 8.
    for index, point in ((1, [0, 0]), (2, [1, 3]), (3, [3, 5]), (4, [4, 8])):
        (found,) = prompts.at(index).united
        assert found.points_rc.tolist() == [point, point]
        assert found.labels.tolist() == [1, 0]
    boxes = [prompts.at(index).united[0].box_rc.tolist() for index in prompts.sources]
    # Bottom: 1, 8/3, 13/3, 6; right: 1, 4, 7, 10; left: 0, 7/3, 14/3, 7.
    assert boxes == [[0, 0, 1, 1], [1, 2, 3, 4], [2, 5, 4, 7], [3, 7, 6, 10]]
    assert [prompts.at(index).interactions for index in prompts.sources] == [4, 0, 0, 4]


def test_halves_are_rounded_up_and_a_box_keeps_its_pixel():
    row, next_row = box(slice(1, 2), slice(0, 1)), box(slice(2, 3), slice(0, 1))
    masks = np.stack([row, 0 * row, next_row], axis=2)
    (found,) = volume_prompts(masks, PromptProtocol(every=5), "together").at(1).united
    assert found.points_rc.tolist() == [[2, 0], [2, 0]]
    assert found.box_rc.tolist() == [2, 0, 3, 1]


def test_a_point_stays_where_it_falls():
    left, right = box(slice(4, 5), slice(0, 1)), box(slice(4, 5), slice(10, 11))
    masks = np.stack([left, left, right, right], axis=2)
    (found,) = volume_prompts(masks, PromptProtocol(every=9), "together").at(1).united
    assert found.points_rc[0].tolist() == [4, 3]
    assert masks[4, 3, 1] == 0


@pytest.mark.parametrize(
    ("every", "drawn"),
    [(1, [2, 3, 5, 6, 7]), (2, [2, 5, 7]), (3, [2, 6, 7]), (4, [2, 7]), (5, [2, 7]), (99, [2, 7])],
)
def test_every_kth_slice_with_the_object_is_drawn_and_the_last(every, drawn):
    masks = np.zeros((ROWS, COLUMNS, 9), dtype=np.uint8)
    masks[1:3, 4:6, [2, 3, 5, 6, 7]] = 1
    prompts = volume_prompts(masks, PromptProtocol(every=every), "together")
    assert [index for index in prompts.sources if prompts.at(index).interactions] == drawn
    assert list(prompts.sources) == [2, 3, 5, 6, 7] if every == 1 else [2, 3, 4, 5, 6, 7]


def test_ends_of_labels_are_drawn_and_labels_apart_have_their_own_slices():
    masks = np.zeros((ROWS, COLUMNS, 12), dtype=np.uint8)
    masks[1:3, 1:3, 0:6] = 1
    masks[5:7, 5:7, 4:12] = 2
    protocol = PromptProtocol(every=4)

    def drawn(objects: str) -> dict[int, int]:
        prompts = volume_prompts(masks, protocol, objects)
        return {
            index: prompts.at(index).interactions
            for index in prompts.sources
            if prompts.at(index).interactions
        }

    # A point per label, the negative one and the box.
    assert drawn("together") == {0: 4, 4: 5, 5: 5, 8: 4, 11: 4}
    assert drawn("apart") == {0: 4, 4: 8, 5: 4, 8: 4, 11: 4}
