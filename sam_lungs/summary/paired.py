"""Tests and effect size of paired differences, a difference per case."""

import numpy as np
import pandas as pd
from scipy import stats

from sam_lungs.summary.statistics import RESAMPLES, SEED

# The signs of so many differences can be flipped in at most RESAMPLES ways.
EXACT_CASES = int(np.log2(RESAMPLES))
# So many ways are in memory at once; SciPy draws the same ones because it divides RESAMPLES.
AT_ONCE = 1_000


def permutation_p(differences: np.ndarray) -> float:
    """Return the two-sided p of the permutation test of the mean difference.

    Under its hypothesis the two values of a case can be swapped, so the sign of each difference can
    be flipped. All ways to do so are tried where at most EXACT_CASES cases differ, else RESAMPLES
    random ways with seed SEED; then the smallest p is 2 / (RESAMPLES + 1).

    NaN for fewer than two cases, and when none differs.

    Good, Permutation, Parametric, and Bootstrap Tests of Hypotheses, Springer 2005.
    """

    def rounded_sum(values: np.ndarray, axis: int) -> np.ndarray:
        # Orders the ways as the mean does. Rounded, because rounding errors would break ties.
        return values.sum(axis).round(9)

    differing = differences[differences != 0]
    if len(differences) < 2 or not len(differing):
        return np.nan
    if len(differing) == 1:  # either sign; SciPy wants two
        return 1.0
    test = stats.permutation_test(
        (differing,),
        rounded_sum,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        batch=AT_ONCE,
        rng=SEED,
    )
    return float(test.pvalue)


def wilcoxon_p(differences: np.ndarray) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test, which belongs to `rank_biserial`.

    Zeros are left out. NaN for fewer than two cases, and when none differs.
    """
    differing = differences[differences != 0]
    if len(differing) <= EXACT_CASES:
        # The same as SciPy's, which takes seconds when there are ties.
        return permutation_p(signed_ranks(differences))
    return float(stats.wilcoxon(differing).pvalue)


def signed_ranks(differences: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the ranks of absolute differences along an axis with their signs; zeros have none."""
    # Zeros have the lowest ranks. Without them all other ranks are lower by their number.
    zeros = (differences == 0).sum(axis=axis, keepdims=True)
    return np.sign(differences) * (stats.rankdata(np.abs(differences), axis=axis) - zeros)


def rank_biserial(differences: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the matched-pairs rank-biserial correlation along an axis, -1..1.

    The absolute differences are ranked. The result is the positive differences' share of the ranks
    minus the negative differences' share. Zeros are left out; the result is 0 when all are zero.

    Kerby, Comprehensive Psychology 2014, doi 10.2466/11.IT.3.1.
    """
    count = (differences != 0).sum(axis=axis)
    rank_sum = np.maximum(count * (count + 1) / 2, 1)
    return signed_ranks(differences, axis).sum(axis=axis) / rank_sum


def holm(p: pd.Series) -> pd.Series:
    """Return p-values corrected for their number; NaN stays NaN and does not count.

    Holm, Scandinavian Journal of Statistics 1979, 6(2):65-70.
    """
    ordered = p.dropna().sort_values()
    factors = np.arange(len(ordered), 0, -1)
    return (ordered * factors).clip(upper=1).cummax().reindex(p.index)
