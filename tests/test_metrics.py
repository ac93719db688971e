import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam_lungs.metrics import dice, jaccard

SHAPES = st.tuples(st.integers(1, 6), st.integers(1, 6))
MASK_PAIRS = SHAPES.flatmap(lambda shape: st.tuples(arrays(bool, shape), arrays(bool, shape)))


def test_values_by_hand():
    predicted = np.array([[1, 1, 1, 0]], dtype=bool)
    true = np.array([[0, 1, 1, 1]], dtype=bool)
    assert jaccard(predicted, true) == 2 / 4
    assert dice(predicted, true) == 4 / 6


def test_two_empty_masks_have_no_value_and_one_has_zero():
    empty, full = np.zeros((2, 3), dtype=bool), np.ones((2, 3), dtype=bool)
    assert math.isnan(jaccard(empty, empty))
    assert math.isnan(dice(empty, empty))
    assert jaccard(empty, full) == dice(empty, full) == 0
    assert jaccard(full, full) == dice(full, full) == 1


@given(MASK_PAIRS)
def test_both_are_symmetric_fractions_that_determine_each_other(masks):
    predicted, true = masks
    if not (predicted | true).any():
        return
    j, d = jaccard(predicted, true), dice(predicted, true)
    assert 0 <= j <= d <= 1
    assert (j, d) == (jaccard(true, predicted), dice(true, predicted))
    assert d == pytest.approx(2 * j / (1 + j))
    assert (j == 1) == (predicted == true).all()
