import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam_lungs.study.metrics import CLICK_METRICS, click_agreement, dice, jaccard, surface_agreement

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6))
MASK_PAIRS = SHAPES.flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))


def test_values_by_hand():
    predicted = np.array([[1, 1, 1, 0]], dtype=bool)
    reference = np.array([[0, 1, 1, 1]], dtype=bool)
    assert jaccard(predicted, reference) == 2 / 4
    assert dice(predicted, reference) == 4 / 6


def test_metrics_are_nan_for_two_empty_masks_and_zero_for_one():
    empty, full = np.zeros((2, 3), dtype=bool), np.ones((2, 3), dtype=bool)
    assert math.isnan(jaccard(empty, empty))
    assert math.isnan(dice(empty, empty))
    assert jaccard(empty, full) == dice(empty, full) == 0
    assert jaccard(full, full) == dice(full, full) == 1


@given(MASK_PAIRS)
def test_jaccard_and_dice_are_symmetric_and_follow_from_each_other(masks):
    predicted, reference = masks
    if not (predicted | reference).any():
        return
    j, d = jaccard(predicted, reference), dice(predicted, reference)
    assert 0 <= j <= d <= 1
    assert (j, d) == (jaccard(reference, predicted), dice(reference, predicted))
    assert d == pytest.approx(2 * j / (1 + j))
    assert (j == 1) == (predicted == reference).all()


def test_surfaces_by_hand():
    predicted, reference = np.zeros((2, 12, 12), dtype=bool)
    predicted[5, 5] = reference[5, 9] = True
    # One pixel each, four columns of half a millimetre apart.
    near = surface_agreement(predicted, reference, (2.0, 0.5), tolerance_mm=1.4)
    assert near.hd95_mm == pytest.approx(2)
    assert near.nsd == 0
    assert surface_agreement(predicted, reference, (2.0, 0.5), tolerance_mm=2.1).nsd == 1
    rows = surface_agreement(predicted.T, reference.T, (2.0, 0.5), tolerance_mm=2.1)
    assert rows.hd95_mm == pytest.approx(8)
    assert rows.nsd == 0


def test_surfaces_that_agree_in_part():
    reference = np.zeros((40, 40), dtype=bool)
    reference[10:30, 10:30] = True
    predicted = reference.copy()
    predicted[10:30, 30:36] = True  # moves one side of four by 6 pixels
    agreement = surface_agreement(predicted, reference, (1.0, 1.0), tolerance_mm=0.9)
    # The outlines are 80 and 92 mm long; of each, 60 mm agree, and a little more at the corners.
    assert agreement.nsd == pytest.approx(120 / 172, abs=0.03)
    assert agreement.hd95_mm == pytest.approx(6)


def test_surfaces_of_empty_masks():
    empty, full = np.zeros((4, 5), dtype=bool), np.ones((4, 5), dtype=bool)
    for masks in ((empty, full), (full, empty)):
        agreement = surface_agreement(*masks, (1.0, 1.0), 1.0)
        assert agreement.nsd == 0
        assert math.isnan(agreement.hd95_mm)
    assert all(map(math.isnan, surface_agreement(empty, empty, (1.0, 1.0), 1.0)))


@settings(deadline=None)
@given(MASK_PAIRS, st.floats(0.1, 5), st.floats(0.1, 5), st.floats(0, 4))
def test_surfaces_are_symmetric_and_scale_with_the_spacing(masks, row_mm, column_mm, tolerance_mm):
    predicted, reference = masks
    if not (predicted.any() and reference.any()):
        return
    one = surface_agreement(predicted, reference, (row_mm, column_mm), tolerance_mm)
    assert 0 <= one.nsd <= 1
    assert 0 <= one.hd95_mm <= math.hypot(*np.multiply(predicted.shape, (row_mm, column_mm)))
    other = surface_agreement(reference, predicted, (row_mm, column_mm), tolerance_mm)
    assert other == pytest.approx(one)
    # A factor of 2 is exact in floating point.
    double = surface_agreement(predicted, reference, (2 * row_mm, 2 * column_mm), 2 * tolerance_mm)
    assert double.nsd == pytest.approx(one.nsd)
    assert double.hd95_mm == pytest.approx(2 * one.hd95_mm)
    if (predicted == reference).all():
        assert one == (1, 0)


def test_the_oracle_takes_the_best_mask_of_each_object():
    labels = np.array([[3, 3, 3, 0, 7, 7]])
    masks = np.array(
        [
            [[[1, 1, 0, 0, 0, 0]], [[1, 1, 1, 1, 0, 0]], [[1, 1, 1, 1, 0, 0]]],  # of label 3
            [[[0, 0, 0, 0, 1, 1]], [[0, 0, 0, 0, 1, 0]], [[0, 0, 0, 0, 0, 0]]],  # of label 7
        ],
        dtype=bool,
    )
    measured = click_agreement(masks, labels)
    assert tuple(measured) == CLICK_METRICS
    assert measured == {
        **{"jaccard_mask_1": 4 / 5, "dice_mask_1": 8 / 9},
        **{"jaccard_mask_2": 4 / 6, "dice_mask_2": 8 / 10},
        **{"jaccard_mask_3": 3 / 6, "dice_mask_3": 6 / 9},
        # Masks 2 and 1.
        **{"jaccard_oracle": 5 / 6, "dice_oracle": 10 / 11},
    }
