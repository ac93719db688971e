from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sam_lungs.summary import paired
from sam_lungs.summary.paired import EXACT_CASES, holm, permutation_p, rank_biserial, wilcoxon_p
from sam_lungs.summary.statistics import RESAMPLES


def enumerated_p(differences: list[int]) -> float:
    """Return p over all ways to flip signs, of whole numbers, whose sums are exact."""
    sums = [
        sum(sign * value for sign, value in zip(signs, differences, strict=True))
        for signs in product((1, -1), repeat=len(differences))
    ]
    greater = sum(each >= sum(differences) for each in sums)
    less = sum(each <= sum(differences) for each in sums)
    return min(1, 2 * min(greater, less) / len(sums))


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=8).filter(any))
def test_permutation_p_equals_full_enumeration(tenths):
    # Tenths have no exact binary representation: ties must survive rounding errors.
    differences = np.array(tenths) / 10
    assert permutation_p(differences) == pytest.approx(enumerated_p(tenths), abs=1e-12)
    assert permutation_p(-differences) == permutation_p(differences)
    assert permutation_p(differences[::-1]) == permutation_p(differences)


def test_permutation_p_is_exact_up_to_13_cases():
    assert EXACT_CASES == 13
    assert permutation_p(np.arange(1, 14)) == 2 / 2**13
    assert permutation_p(np.arange(1, 31)) == 2 / (RESAMPLES + 1)


def test_permutation_p_does_not_depend_on_how_many_ways_are_in_memory(monkeypatch):
    differences = np.random.default_rng(3).normal(0.1, 0.5, 30)
    at_once = permutation_p(differences)
    for ways in (500, RESAMPLES):
        monkeypatch.setattr(paired, "AT_ONCE", ways)
        assert permutation_p(differences) == at_once
    assert 0.05 < at_once < 0.95


def test_resampled_permutation_p_is_close_to_the_normal_one_and_repeatable():
    # 100 equal differences, 60 upwards: the sum of signs is at least 20, with correction 19, of
    # standard deviation 10; twice the normal tail beyond 1.9 is 0.0574.
    differences = np.repeat([0.1, -0.1], [60, 40])
    assert permutation_p(differences) == pytest.approx(0.0574, abs=0.007)
    assert permutation_p(differences) == permutation_p(differences)
    assert permutation_p(differences) == permutation_p(-differences)


@pytest.mark.parametrize("cases", [5, 13, 14, 40])
def test_wilcoxon_p_is_that_of_scipy(cases):
    differences = np.random.default_rng(cases).normal(0.3, 1, cases)
    expected = stats.wilcoxon(differences).pvalue
    assert wilcoxon_p(differences) == pytest.approx(expected, rel=1e-12)
    assert wilcoxon_p(np.append(differences, [0, 0])) == pytest.approx(expected, rel=1e-12)


def test_wilcoxon_p_with_ties_equals_full_enumeration():
    # Ranks 1.5, 1.5, 3.5, 3.5, 5.
    assert wilcoxon_p(np.array([0.1, -0.1, 0.2, 0.2, 0.3])) == enumerated_p([3, -3, 7, 7, 10])
    assert 0 < wilcoxon_p(np.repeat([0.1, -0.2], [15, 5])) < 1


@pytest.mark.parametrize("test", [permutation_p, wilcoxon_p])
@pytest.mark.parametrize("differences", [[0.1], [0.0], [0.0, 0.0, 0.0]])
def test_one_case_or_no_difference_has_no_p(test, differences):
    assert np.isnan(test(np.array(differences)))


@pytest.mark.parametrize("test", [permutation_p, wilcoxon_p])
def test_cases_without_difference_do_not_change_p(test):
    assert test(np.array([0.1, 0.2, 0.4])) == test(np.array([0, 0.1, 0, 0.2, 0.4, 0])) == 0.25
    assert test(np.array([0, 0.1])) == 1


@pytest.mark.parametrize(
    ("differences", "effect"),
    [
        ([0.1, 0.2, 0.3], 1),
        ([-0.1, -0.2], -1),
        # Ranks 1, 2, 3, 4; the second difference is negative: (8 - 2) / 10.
        ([0.1, -0.2, 0.3, 0.4], 0.6),
        # Ranks without zeros 1.5, 1.5, 3: (4.5 - 1.5) / 6.
        ([0, 0.1, -0.1, 0, 0.5], 0.5),
        ([0, 0], 0),
    ],
)
def test_rank_biserial_equals_hand_computed_values(differences, effect):
    assert rank_biserial(np.array(differences)) == pytest.approx(effect)


def test_holm_equals_hand_computed_values():
    # Sorted 0.01, 0.02, 0.04 times 3, 2, 1: 0.03, 0.04, 0.04. NaN does not count.
    p = pd.Series([0.04, np.nan, 0.01, 0.02])
    assert holm(p).tolist() == pytest.approx([0.04, np.nan, 0.03, 0.04], nan_ok=True)
    # 0.03 times 2 is 0.06, and 0.035 may not be less than it. No p is more than 1.
    assert holm(pd.Series([0.035, 0.03])).tolist() == pytest.approx([0.06, 0.06])
    assert holm(pd.Series([0.6, 0.7])).tolist() == [1, 1]
    assert holm(pd.Series([np.nan])).isna().all()
