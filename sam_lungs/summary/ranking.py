"""Ranking of runs, and how stable it is when patients are drawn anew.

Ranks of mean values, and their bootstrap over cases, are those of challengeR: Wiesenfarth et al.,
Scientific Reports 2021, doi 10.1038/s41598-021-82017-6. A case is a patient.
"""

import numpy as np
import pandas as pd
from scipy import stats

from sam_lungs.summary.join import JoinedResults
from sam_lungs.summary.matching import cases_of, rename_images, slices_with_lung
from sam_lungs.summary.statistics import CONFIDENCE, FEWEST_CASES, draw_cases
from sam_lungs.utils.errors import InputError

RANKING_NAME = "ranking.csv"


def rank_runs(runs: dict[str, JoinedResults], metric: str = "dice") -> pd.DataFrame:
    """Rank runs by their mean over patients, over the slices with lung that all of them have.

    A patient counts once, as the mean over their volumes of the mean over the slices. The highest
    mean has rank 1, that of a distance (`hd95_mm`, `hd95_penalised_mm`) the lowest; equal means
    share the better rank.

    Columns, a row per run, best first: `run`; `cases`, `slices`, how many patients and slices all
    runs have; `case_avg`, the mean; `rank`; over RESAMPLES bootstrap draws of the patients, the
    same for all runs: `first`, share of the draws in which it has rank 1; `rank_low`, `rank_high`,
    95 % interval of its rank; `leader_not_best`, for runs of rank 1 only: share of the draws in
    which another run has a better mean. With a flat prior this is approximately the probability
    that the leader is not the best for patients like these (Rubin, Annals of Statistics 1981, doi
    10.1214/aos/1176345338). The columns of draws are NaN for fewer than FEWEST_CASES patients.

    Raises `InputError` when the runs have no slice in common, or a volume has a slice twice.
    """
    values = _common_values(runs, metric)
    volumes = values.groupby("image").mean()
    cases = volumes.groupby(cases_of(*(run.volumes for run in runs.values()))).mean()
    table = pd.DataFrame(
        {
            "run": list(runs),
            "cases": len(cases),
            "slices": len(values),
            "case_avg": cases.mean().to_numpy(),
            "rank": _ranks(cases.mean().to_numpy(), metric),
            **dict.fromkeys(("first", "rank_low", "rank_high", "leader_not_best"), np.nan),
        }
    )
    if len(cases) >= FEWEST_CASES:
        of_runs = [cases[run].to_numpy() for run in runs]
        means = np.concatenate(
            [
                np.column_stack([each[drawn].mean(axis=1) for each in of_runs])
                for drawn in draw_cases(len(cases))
            ]
        )
        ranks = _ranks(means, metric)
        first = (ranks == 1).mean(axis=0)
        ends = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
        low, high = np.quantile(ranks, ends, axis=0, method="inverted_cdf")
        leader_not_best = np.where(table["rank"] == 1, 1 - first, np.nan)
        table = table.assign(
            first=first, rank_low=low, rank_high=high, leader_not_best=leader_not_best
        )
    ranks = ["rank", "rank_low", "rank_high"]
    return table.astype(dict.fromkeys(ranks, "Int64")).sort_values("rank", ignore_index=True)


def _common_values(runs: dict[str, JoinedResults], metric: str) -> pd.DataFrame:
    """Return a metric of each run (columns) in the slices that all have, by image and slice."""
    images = next(iter(runs.values())).slices["image"]
    tables = [
        slices_with_lung(rename_images(run.slices, images))
        .dropna(subset=[metric])
        .set_index(["image", "slice"])[metric]
        .rename(name)
        for name, run in runs.items()
    ]
    values = pd.concat(tables, axis=1, join="inner")
    if values.empty:
        raise InputError(
            f"{', '.join(runs)}: no slice with lung is in all of them; compare fewer runs"
        )
    return values


def _ranks(means: np.ndarray, metric: str) -> np.ndarray:
    """Return the ranks of means along the last axis; the best has rank 1, ties the better rank."""
    # Rounding errors would break ties.
    means = means.round(12) * (1 if metric.startswith("hd95") else -1)
    return stats.rankdata(means, method="min", axis=-1)
