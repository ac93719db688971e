"""Means of a study with 95 % intervals.

A case is a patient. Slices of one patient are alike, and so are two scans of one patient.
Intervals are therefore over cases, never over slices. All are percentiles of the bootstrap over
cases; `benchmarks/intervals.py` measures how often they hold the true mean.
"""

from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd

from sam_lungs.study.metrics import metrics_in, volume_metrics_in

CONFIDENCE = 0.95
RESAMPLES = 10_000
SEED = 0
# So many drawn cases are in memory at once.
BLOCK = 1_000_000
# With fewer cases there is no interval; below the second number it is called approximate.
FEWEST_CASES = 6
APPROXIMATE_BELOW = 50


def patient_of(volumes: pd.DataFrame) -> pd.Series:
    """Return the patient of each volume; a volume whose patient is not known is one of its own."""
    return volumes["patient"].fillna(volumes["image"]).rename("case")


def interval_name(cases: int) -> str:
    """Return the name of the interval over a number of cases, for readers."""
    if cases < FEWEST_CASES:
        return f"no interval, fewer than {FEWEST_CASES} patients"
    return f"{CONFIDENCE:.0%}" + (", approximate" if cases < APPROXIMATE_BELOW else "")


def summarize_cases(volumes: pd.DataFrame) -> pd.DataFrame:
    """Return a row per case: its name, the means over its volumes, and their number.

    The means are of the metrics that at least one volume has, and of `interactions`, NaN where it
    is not known of one of them.

    volumes: as for `estimate`.
    """
    by_case = volumes.groupby(patient_of(volumes))
    means = by_case[list(_metric_columns(volumes).values())].mean()
    return means.assign(
        interactions=by_case.apply(_interactions), volumes=by_case.size()
    ).reset_index()


def estimate(volumes: pd.DataFrame) -> pd.DataFrame:
    """Return means and intervals: a row per subset and metric, the subset `all` first.

    Volumes whose subset is not known are in `all` only.

    volumes: a row per volume: `image`, `patient`, `subset`; for each slice metric its average over
        the volume's slices and the number of these slices, such as `dice_avg` and `dice_slices`;
        for each volume metric its value, such as `dice_3d`; perhaps `interactions`.

    Columns: those of `intervals.csv` in docs/results.md.
    """
    groups = {"all": volumes}
    if volumes["subset"].nunique(dropna=False) > 1:
        groups |= dict(iter(volumes.groupby("subset")))
    table = pd.DataFrame(
        [
            {"subset": subset, "metric": metric} | _estimate_metric(group, metric, column)
            for subset, group in groups.items()
            for metric, column in _metric_columns(group).items()
        ]
    )
    return table.astype({"slices": "Int64"})


def draw_cases(cases: int) -> Iterator[np.ndarray]:
    """Yield the bootstrap's RESAMPLES draws of cases with replacement, in blocks that fit memory.

    A block is an array (draws, cases) of int indices with at most BLOCK of them, or one draw. The
    draws do not depend on the size of the blocks.
    """
    # Not by SciPy: the last digit of its limits depends on its version.
    random = np.random.default_rng(SEED)
    at_once = max(BLOCK // cases, 1)
    for start in range(0, RESAMPLES, at_once):
        yield random.integers(cases, size=(min(at_once, RESAMPLES - start), cases))


def bootstrap_interval(
    statistic: Callable[..., np.ndarray], *samples: np.ndarray, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return a statistic's bootstrap interval: percentiles over RESAMPLES draws of the cases.

    statistic: takes an array (draws, cases) per sample, and `axis`.
    samples: arrays (cases,). A draw takes the same cases from each.

    Returns NaN for fewer than FEWEST_CASES cases.
    """
    cases = len(samples[0])
    if cases < FEWEST_CASES:
        return np.nan, np.nan
    values = np.concatenate(
        [statistic(*(sample[drawn] for sample in samples), axis=1) for drawn in draw_cases(cases)]
    )
    return tuple(np.quantile(values, [(1 - confidence) / 2, (1 + confidence) / 2]).tolist())


def mean_interval(
    values: pd.Series, cases: pd.Series, confidence: float = CONFIDENCE
) -> tuple[float, float]:
    """Return the bootstrap interval of a mean over volumes; a case is drawn with all its volumes.

    values, cases: a value and the case of each volume, with the same index.
    """
    by_case = values.groupby(cases)
    return bootstrap_interval(
        lambda sums, counts, axis: sums.sum(axis) / counts.sum(axis),
        by_case.sum().to_numpy(),
        by_case.size().to_numpy(),
        confidence=confidence,
    )


def _metric_columns(volumes: pd.DataFrame) -> dict[str, str]:
    """Return the metrics that at least one volume has, and the columns of their values."""
    known = volumes.dropna(axis="columns", how="all").columns
    averages = [name.removesuffix("_avg") for name in known if name.endswith("_avg")]
    of_slices = {metric: f"{metric}_avg" for metric in metrics_in(averages)}
    return of_slices | {metric: metric for metric in volume_metrics_in(known)}


def _estimate_metric(volumes: pd.DataFrame, metric: str, column: str) -> dict:
    volumes = volumes.dropna(subset=[column])
    values, cases = volumes[column], patient_of(volumes)
    of_cases = values.groupby(cases).mean()
    slices, slice_avg = pd.NA, np.nan
    if column != metric:
        of_volumes = volumes[f"{metric}_slices"]
        slices, slice_avg = of_volumes.sum(), (values * of_volumes).sum() / of_volumes.sum()
    volume_low, volume_high = mean_interval(values, cases)
    case_low, case_high = bootstrap_interval(np.mean, of_cases.to_numpy())
    return {
        "cases": len(of_cases),
        "volumes": len(volumes),
        "slices": slices,
        "slice_avg": slice_avg,
        "volume_avg": values.mean(),
        "volume_low": volume_low,
        "volume_high": volume_high,
        "case_avg": of_cases.mean(),
        "case_low": case_low,
        "case_high": case_high,
        "interactions": _interactions(volumes),
    }


def _interactions(volumes: pd.DataFrame) -> float:
    """Return the mean number of interactions per volume; NaN unless it is known of all volumes."""
    return volumes.reindex(columns=["interactions"])["interactions"].mean(skipna=False)
