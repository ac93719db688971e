"""Means of a study with 95 % intervals.

A case is a patient. Slices of one patient are alike, and so are two scans of one patient.
Intervals are therefore over cases, never over slices.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from sam_lungs.study.metrics import ALL_METRICS

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 0


def patient_of(volumes: pd.DataFrame) -> pd.Series:
    """Return the patient of each volume; a volume whose patient is not known is one of its own."""
    return volumes["patient"].fillna(volumes["image"]).rename("case")


def summarize_cases(volumes: pd.DataFrame) -> pd.DataFrame:
    """Return a row per case: its name, the averages of its volumes' averages, and their number.

    volumes: columns `image`, `patient`, and the average of each metric, such as `dice_avg`.
    """
    averages = [f"{metric}_avg" for metric in _metrics_of(volumes)]
    by_case = volumes.groupby(patient_of(volumes))
    return by_case[averages].mean().assign(volumes=by_case.size()).reset_index()


def estimate(volumes: pd.DataFrame) -> pd.DataFrame:
    """Return means and intervals: a row per subset and metric, the subset `all` first.

    Volumes whose subset is not known are in `all` only.

    volumes: a row per volume: `image`, `patient`, `subset` and, for each metric, its average over
        the volume's slices and the number of these slices, such as `dice_avg` and `dice_slices`.

    Columns: those of `intervals.csv` in docs/results.md.
    """
    groups = {"all": volumes}
    if volumes["subset"].nunique(dropna=False) > 1:
        groups |= dict(iter(volumes.groupby("subset")))
    return pd.DataFrame(
        [
            {"subset": subset, "metric": metric} | _estimate_metric(group, metric)
            for subset, group in groups.items()
            for metric in _metrics_of(group)
        ]
    )


def bootstrap_interval(
    statistic: Callable[..., np.ndarray], *samples: np.ndarray
) -> tuple[float, float]:
    """Return a statistic's bootstrap interval: percentiles over RESAMPLES draws of the cases.

    statistic: takes an array (RESAMPLES, cases) per sample, and `axis`.
    samples: arrays (cases,). A draw takes the same cases from each. One case has the interval NaN.
    """
    cases = len(samples[0])
    if cases < 2:
        return np.nan, np.nan
    # Not by SciPy: the last digit of its limits depends on its version.
    drawn = np.random.default_rng(SEED).integers(cases, size=(RESAMPLES, cases))
    values = statistic(*(sample[drawn] for sample in samples), axis=1)
    return tuple(np.quantile(values, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]).tolist())


def _metrics_of(volumes: pd.DataFrame) -> list[str]:
    """Return the metrics that at least one volume has."""
    known = volumes.dropna(axis="columns", how="all")
    return [metric for metric in ALL_METRICS if f"{metric}_avg" in known]


def _estimate_metric(volumes: pd.DataFrame, metric: str) -> dict:
    volumes = volumes.dropna(subset=[f"{metric}_avg"])
    values, slices = volumes[f"{metric}_avg"], volumes[f"{metric}_slices"]
    by_case = values.groupby(patient_of(volumes))
    volume_low, volume_high = bootstrap_interval(
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        by_case.sum().to_numpy(),
        by_case.size().to_numpy(),
    )
    case_low, case_high = _t_interval(by_case.mean().to_numpy())
    return {
        "cases": len(by_case),
        "volumes": len(volumes),
        "slices": slices.sum(),
        "slice_avg": (values * slices).sum() / slices.sum(),
        "volume_avg": values.mean(),
        "volume_low": volume_low,
        "volume_high": volume_high,
        "case_avg": by_case.mean().mean(),
        "case_low": case_low,
        "case_high": case_high,
    }


def _t_interval(values: np.ndarray) -> tuple[float, float]:
    cases = len(values)
    if cases < 2:
        return np.nan, np.nan
    # Rounded, because its twelfth digit depends on SciPy's version.
    quantile = round(stats.t.ppf((1 + CONFIDENCE) / 2, cases - 1), 9)
    half_width = quantile * stats.sem(values)
    return float(values.mean() - half_width), float(values.mean() + half_width)
