"""How often the 95 % intervals of a mean over patients hold the true mean, by number of patients.

    python -m benchmarks.intervals

A study draws the Dice scores of its patients from the 20 published means of volumes, whose mean is
the true one. Student's t interval, which assumes normally distributed scores, is shown beside.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from sam_lungs.summary.compare import published_volumes
from sam_lungs.summary.statistics import CONFIDENCE, bootstrap_interval
from sam_lungs.utils.cli import option, parse_options, run_script


@dataclass
class Options:
    """Command-line options."""

    patients: Sequence[int] = option(
        "patients of a study", (6, 10, 20, 50, 138), group="data", shown_default="6 10 20 50 138"
    )
    studies: int = option("studies of each size", 4000, group="data")
    seed: int = option("seed of the draws", 1, group="data")


def main() -> None:
    options = parse_options(
        Options,
        "Measure the coverage of the intervals of a mean over patients.",
        "python -m benchmarks.intervals",
        prog="python -m benchmarks.intervals",
    )
    scores = published_volumes()["dice_avg"].to_numpy()
    random = np.random.default_rng(options.seed)
    rows = []
    for patients in options.patients:
        studies = random.choice(scores, (options.studies, patients))
        bootstrap = np.array([bootstrap_interval(np.mean, study) for study in studies])
        quantile = stats.t.ppf((1 + CONFIDENCE) / 2, patients - 1)
        reach = quantile * stats.sem(studies, axis=1)[:, None] * [-1, 1]
        student = studies.mean(axis=1, keepdims=True) + reach
        row = {"patients": patients}
        for name, (low, high) in (("bootstrap", bootstrap.T), ("Student's t", student.T)):
            row[f"{name}: coverage"] = np.mean((low <= scores.mean()) & (scores.mean() <= high))
            row[f"{name}: mean width"] = np.mean(high - low)
            row[f"{name}: reaches beyond 1"] = np.mean(high > 1)
        rows.append(row)
    print(pd.DataFrame(rows).to_string(index=False, float_format="{:.4f}".format))


if __name__ == "__main__":
    run_script(main)
