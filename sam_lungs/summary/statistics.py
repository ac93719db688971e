"""How sure a study's means are: volumes by patient and by subset, and 95 % intervals.

The slices of a patient are alike, and so are two scans of one. Intervals are therefore over cases,
the patients, and never over slices.
"""

import re
from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import stats

from sam_lungs.study.results import METRICS, SURFACE_METRICS

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 0

# Of the dataset's 20 volumes two are of radiopaedia_10 and two of radiopaedia_29: 18 cases.
SCAN_OF_CASE = re.compile(r"(radiopaedia_\d+)_\d+_\d+")


def case_of(image: str) -> str:
    """Return the patient of a volume, by its name with or without `image_`."""
    name = image.removeprefix("image_")
    scan = SCAN_OF_CASE.fullmatch(name)
    return scan.group(1) if scan else name


def subset_of(image: str) -> str:
    """Return the subset of a volume, its name's first word: coronacases, radiopaedia, phantom."""
    return case_of(image).partition("_")[0]


def summarize_cases(volumes: pd.DataFrame) -> pd.DataFrame:
    """Return a row per case: its name, how many volumes it has, and the mean of their averages.

    volumes: columns `image` and, for each metric, its average, such as `dice_avg`.
    """
    averages = [f"{metric}_avg" for metric in _metrics_of(volumes)]
    by_case = volumes.groupby(volumes["image"].map(case_of).rename("case"))
    return by_case[averages].mean().assign(volumes=by_case.size()).reset_index()


def estimate(volumes: pd.DataFrame) -> pd.DataFrame:
    """Return means and their intervals, a row per subset and metric, all volumes first.

    volumes: a row per volume, columns `image` and, for each metric, its average over the volume's
        slices and how many these are, such as `dice_avg` and `dice_slices`.

    Columns: `subset`, `metric`; how many `cases`, `volumes` and `slices` have it; `slice_avg`, over
    all slices; `volume_avg`, over volumes, with a bootstrap interval (percentiles of RESAMPLES
    draws of as many cases, all volumes of a case together, from SEED); and `case_avg`, over cases,
    with Student's t interval. Intervals of one case are NaN.
    """
    subsets = volumes["image"].map(subset_of)
    groups = {"all": volumes}
    if subsets.nunique() > 1:
        groups |= dict(iter(volumes.groupby(subsets)))
    return pd.DataFrame(
        [
            {"subset": subset, "metric": metric} | _estimate_metric(of_subset, metric)
            for subset, of_subset in groups.items()
            for metric in _metrics_of(of_subset)
        ]
    )


def _metrics_of(volumes: pd.DataFrame) -> list[str]:
    """Return the metrics that a volume has."""
    averages = {metric: f"{metric}_avg" for metric in (*METRICS, *SURFACE_METRICS)}
    return [name for name, avg in averages.items() if avg in volumes and volumes[avg].notna().any()]


def _estimate_metric(volumes: pd.DataFrame, metric: str) -> dict:
    volumes = volumes.dropna(subset=[f"{metric}_avg"])
    values, slices = volumes[f"{metric}_avg"], volumes[f"{metric}_slices"]
    by_case = values.groupby(volumes["image"].map(case_of))
    sums, counts = by_case.sum().to_numpy(), by_case.size().to_numpy()
    volume_low, volume_high = bootstrap(
        len(by_case), lambda drawn: sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1)
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


def bootstrap(cases: int, statistic: Callable[[np.ndarray], np.ndarray]) -> tuple[float, float]:
    """Return a statistic's interval: percentiles of RESAMPLES draws of as many cases from SEED.

    statistic: takes the numbers of the cases drawn, (RESAMPLES, cases) int, and returns its value
        for each draw, (RESAMPLES,). The interval of one case is NaN.
    """
    if cases < 2:
        return np.nan, np.nan
    drawn = np.random.default_rng(SEED).integers(cases, size=(RESAMPLES, cases))
    low, high = np.quantile(statistic(drawn), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)


def _t_interval(values: np.ndarray) -> tuple[float, float]:
    cases = len(values)
    if cases < 2:
        return np.nan, np.nan
    # Rounded, because its twelfth digit depends on SciPy's version.
    quantile = round(stats.t.ppf((1 + CONFIDENCE) / 2, cases - 1), 9)
    reach = quantile * stats.sem(values)
    return float(values.mean() - reach), float(values.mean() + reach)
