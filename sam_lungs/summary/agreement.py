"""Agreement of a study with the published figures: is their difference negligible?

A difference that is not significant shows nothing: with few or noisy volumes none is. Equivalence
is shown instead, with a margin that was declared beforehand; its reason is in docs/paper.md.
"""

import pandas as pd

from sam_lungs.study.metrics import METRICS
from sam_lungs.summary.statistics import mean_interval

# Largest difference from the published mean of a volume that still counts as reproduced.
TOLERANCE = 0.001
# Two one-sided tests at 5 % reject where the 90 % interval lies inside the margin.
TOST_CONFIDENCE = 0.9
# 95 % of normally distributed differences lie within this many standard deviations of their mean.
LIMIT_DEVIATIONS = 1.96


def agreement(comparison: pd.DataFrame) -> pd.DataFrame:
    """Return a row per metric: how reproduced means of volumes agree with the published ones.

    comparison: from `compare.compare_with_published`.

    Columns: `metric`; `volumes` and `patients`, how many are compared; `mean_difference` over
    volumes, reproduced minus published; `low` and `high`, its 90 % bootstrap interval, for which
    patients are drawn with all their volumes (Schuirmann 1987, doi 10.1007/BF01068419); `limit_low`
    and `limit_high`, the 95 % limits of agreement of a volume, mean_difference plus and minus 1.96
    standard deviations (Bland and Altman 1986, doi 10.1016/S0140-6736(86)90837-8); `margin`,
    TOLERANCE; `equivalent`, whether interval and limits lie inside the margin, NA where there are
    too few patients for an interval.
    """
    return pd.DataFrame([_agreement_in(comparison, metric) for metric in METRICS]).astype(
        {"equivalent": "boolean"}
    )


def slice_means(comparison: pd.DataFrame) -> pd.DataFrame:
    """Return the paper's own figures, means over all slices with lung, published and reproduced.

    comparison: from `compare.compare_with_published`, with all published volumes.

    Columns: `metric,published,reproduced,difference`, a row per metric.
    """
    rows = []
    for metric in METRICS:
        row = {"metric": metric}
        for name in ("published", "reproduced"):
            slices = comparison[f"lung_slices_{name}"]
            row[name] = (comparison[f"{metric}_{name}"] * slices).sum() / slices.sum()
        rows.append(row | {"difference": row["reproduced"] - row["published"]})
    return pd.DataFrame(rows)


def _agreement_in(comparison: pd.DataFrame, metric: str) -> dict:
    known = comparison.dropna(subset=[f"{metric}_difference"])
    differences, patients = known[f"{metric}_difference"], known["patient"]
    low, high = mean_interval(differences, patients, TOST_CONFIDENCE)
    mean, reach = differences.mean(), LIMIT_DEVIATIONS * differences.std()
    ends = pd.Series([low, high, mean - reach, mean + reach])
    return {
        "metric": metric,
        "volumes": len(known),
        "patients": patients.nunique(),
        "mean_difference": mean,
        "low": low,
        "high": high,
        "limit_low": mean - reach,
        "limit_high": mean + reach,
        "margin": TOLERANCE,
        "equivalent": pd.NA if ends.isna().any() else bool((ends.abs() <= TOLERANCE).all()),
    }
