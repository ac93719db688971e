import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam_lungs.study.metrics import (
    CLICK_METRICS,
    click_agreement,
    dice,
    jaccard,
    metrics_in,
    volume_metrics_in,
)

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


def test_the_names_of_metrics_among_columns():
    columns = ["slice", "jaccard", "dice", "score", "nsd_1mm", "nsd_0.5mm", "nsd_3d_2mm", "dice_3d"]
    columns += ["hd95_penalised_mm", "hd95_3d_mm", "dice_avg", "nsd", "dice_oracle", "interactions"]
    found = ["jaccard", "dice", "nsd_1mm", "nsd_0.5mm", "hd95_penalised_mm", "dice_oracle"]
    assert metrics_in(columns) == found
    assert volume_metrics_in(columns) == ["nsd_3d_2mm", "dice_3d", "hd95_3d_mm"]
