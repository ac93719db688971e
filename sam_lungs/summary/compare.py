"""How runs of a study agree: with what was published, and with each other.

The published figures are of Gutierrez et al., IEEE Access 2024, doi 10.1109/ACCESS.2024.3353142.
As in `statistics`, intervals and p-values are over cases, the patients, and never over slices.
"""

import warnings
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from sam_lungs.study.results import METRICS
from sam_lungs.summary.join import Study, join_results
from sam_lungs.summary.statistics import bootstrap, case_of
from sam_lungs.utils.errors import InputError

PUBLISHED_VOLUMES = Path(__file__).with_name("published_volumes.csv")
# How far a volume's mean may be from the published one and still count as reproduced.
TOLERANCE = 0.001


def published_volumes() -> pd.DataFrame:
    """Return the published mean of each of the dataset's 20 volumes, to six decimals.

    Columns `image,slices,lung_slices,jaccard_avg,dice_avg`, names without `image_`.
    """
    return pd.read_csv(PUBLISHED_VOLUMES)


def compare_with_published(
    study: Study, published_slices: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return a row per volume that the study has and that was published.

    published_slices: columns `image,slice,jaccard,dice`, of as many published volumes as there are;
        their means, in full precision, take the place of those of `published_volumes`.

    Columns: `image`; for each metric its mean over the volume's slices with lung, such as
    `dice_published` and `dice_reproduced`, and `dice_difference`, reproduced minus published;
    `largest_slice_difference`, of one slice's Dice, without sign, NaN without its published slices;
    `lung_slices_published` and `lung_slices_reproduced`. Names come with or without `image_` and
    are returned without.

    Raises `InputError` when a volume has a slice twice.
    """
    means = {f"{metric}_avg": metric for metric in METRICS}
    published = published_volumes().set_index("image").rename(columns=means)
    published = published[[*METRICS, "lung_slices"]]
    largest = pd.Series(dtype="float64")
    if published_slices is not None:
        published = _volume_means(published_slices).reindex(published.index).fillna(published)
        published = published.astype({"lung_slices": "int64"})
        pairs = pair_slices(published_slices, study.slices)
        differences = (pairs["dice_reproduced"] - pairs["dice_published"]).abs()
        largest = differences.groupby(pairs["image"]).max()
    table = published.merge(
        _volume_means(study.slices), on="image", suffixes=("_published", "_reproduced")
    )
    columns = []
    for metric in METRICS:
        both = [f"{metric}_published", f"{metric}_reproduced"]
        table[f"{metric}_difference"] = table[both[1]] - table[both[0]]
        columns += [*both, f"{metric}_difference"]
    # Without volumes in common a table would take over the rows of what is assigned to it.
    table["largest_slice_difference"] = largest.reindex(table.index)
    columns += ["largest_slice_difference", "lung_slices_published", "lung_slices_reproduced"]
    return table[columns].reset_index()


def pair_slices(
    first: pd.DataFrame,
    second: pd.DataFrame,
    names: tuple[str, str] = ("published", "reproduced"),
) -> pd.DataFrame:
    """Return the slices with lung that both have, matched by image and slice number.

    first, second: columns `image,slice,jaccard,dice`, NaN where a slice has no lung.
    names: what their columns are called in the result: `image`, `slice` and, for each metric, such
        as `dice_published` and `dice_reproduced`.

    Raises `InputError` when a volume has a slice twice.
    """
    one, other = (_slices(table).dropna(subset=METRICS) for table in (first, second))
    suffixes = tuple(f"_{name}" for name in names)
    return one.merge(other, on=["image", "slice"], suffixes=suffixes)


def verdict(comparison: pd.DataFrame) -> str:
    """Return in one line whether the published figures are reproduced.

    They are when every volume compared has as many slices with lung as published, and its mean
    Jaccard and Dice are within TOLERANCE of the published ones.

    comparison: as `compare_with_published` returns it.
    """
    published = len(published_volumes())
    if comparison.empty:
        return f"Nothing to compare: none of the {published} published volumes is here"
    table = comparison.set_index("image")
    same_slices = table["lung_slices_reproduced"] == table["lung_slices_published"]
    differences = table[[f"{metric}_difference" for metric in METRICS]].abs()
    # A mean of nothing is as far off as can be.
    largest = differences.fillna(np.inf).max(axis=1)
    agrees = same_slices & (largest <= TOLERANCE)

    shift = abs(table["dice_reproduced"].mean() - table["dice_published"].mean())
    if agrees.all():
        extent = "" if len(table) == published else " as far as compared"
        return (
            f"Reproduced{extent}: {len(table)} of {published} published volumes within {TOLERANCE};"
            f" mean Dice differs by {shift:.6f}, largest difference of a volume"
            f" {largest.max():.6f} ({largest.idxmax()})"
        )
    worst = largest[~agrees].idxmax()
    slices = table.loc[worst, ["lung_slices_reproduced", "lung_slices_published"]].astype(int)
    return (
        f"Not reproduced: {agrees.sum()} of {len(table)} volumes compared ({published} published)"
        f" within {TOLERANCE}; mean Dice differs by {shift:.6f}; {worst} differs most, by"
        f" {largest[worst]:.6f}, with {slices.iloc[0]} slices with lung where {slices.iloc[1]} were"
        " published"
    )


def read_runs(folders: list[Path]) -> dict[str, Study]:
    """Read two results folders or more, named by the folder, or by its path if names coincide.

    Raises `InputError` when there are fewer, a folder is given twice, or one cannot be read.
    """
    if len(folders) < 2:
        raise InputError("one results folder has nothing to be compared with; give two or more")
    names = [folder.resolve().name for folder in folders]
    studies = {}
    for folder, name in zip(folders, names, strict=True):
        unique = name if names.count(name) == 1 else str(folder.resolve())
        if unique in studies:
            raise InputError(f"{folder}: given twice; give each results folder once")
        studies[unique] = join_results(folder)
    return studies


def compare_runs(studies: dict[str, Study]) -> pd.DataFrame:
    """Return how runs differ, a row per pair of them, in order, and metric, second minus first.

    Compared are the slices with lung that both runs have; a case counts once, as the mean over its
    volumes of the mean over their slices.

    Columns: `first`, `second` (the runs' names), `metric`; how many `cases` and `slices` are
    compared and how many `slices_left_out` only one run has; `first_avg`, `second_avg` and their
    `difference`, over cases, with the bootstrap interval `low`, `high` of the difference;
    `effect` with `effect_low`, `effect_high`, see `rank_biserial`; `p` of Wilcoxon's signed-rank
    test, two-sided, which leaves out cases without difference (NaN of fewer than two cases or if
    there is no difference at all); and `p_holm`, Holm's correction for all p-values of the table.
    Intervals are percentiles of RESAMPLES draws of as many cases from SEED, NaN of one case.

    Raises `InputError` when two runs have no slice in common, or a volume has a slice twice.
    """
    rows = []
    for (first, one), (second, other) in combinations(studies.items(), 2):
        pairs = pair_slices(one.slices, other.slices, ("first", "second"))
        if pairs.empty:
            raise InputError(f"{first} and {second} have no slice with lung in common")
        with_lung = sum(len(run.slices.dropna(subset=METRICS)) for run in (one, other))
        counts = {"slices": len(pairs), "slices_left_out": with_lung - 2 * len(pairs)}
        rows += [
            {"first": first, "second": second, "metric": metric}
            | _compare_cases(pairs, metric, counts)
            for metric in METRICS
        ]
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p"])
    return table


def rank_biserial(differences: np.ndarray) -> np.ndarray:
    """Return the matched-pairs rank-biserial correlation along the last axis, -1..1.

    Of the ranks of the differences' sizes, the share of the positive ones minus that of the
    negative ones. Zero differences are left out; it is 0 when all are zero.

    Kerby, Comprehensive Psychology 2014, doi 10.2466/11.IT.3.1.
    """
    # Zeros have the lowest ranks: without them all others move down by as many.
    zeros = (differences == 0).sum(axis=-1, keepdims=True)
    ranks = stats.rankdata(np.abs(differences), axis=-1) - zeros
    count = (differences != 0).sum(axis=-1)
    all_ranks = np.maximum(count * (count + 1) / 2, 1)
    return (np.sign(differences) * ranks).sum(axis=-1) / all_ranks


def holm(p: pd.Series) -> pd.Series:
    """Return p-values corrected for how many there are; NaN stays NaN and does not count.

    Holm, Scandinavian Journal of Statistics 1979, 6(2):65-70.
    """
    ordered = p.dropna().sort_values()
    times = np.arange(len(ordered), 0, -1)
    return (ordered * times).clip(upper=1).cummax().reindex(p.index)


def _slices(table: pd.DataFrame) -> pd.DataFrame:
    """Return image, without `image_`, slice and metrics of a table of slices."""
    table = table[["image", "slice", *METRICS]]
    table = table.assign(image=table["image"].str.removeprefix("image_"))
    twice = table[table.duplicated(["image", "slice"])]
    if len(twice):
        image, number = twice.iloc[0][["image", "slice"]]
        raise InputError(f"{image}: has slice {number} twice; process it again")
    return table


def _volume_means(slices: pd.DataFrame) -> pd.DataFrame:
    by_image = _slices(slices).groupby("image")
    return by_image[list(METRICS)].mean().assign(lung_slices=by_image["dice"].count())


def _compare_cases(pairs: pd.DataFrame, metric: str, counts: dict) -> dict:
    first, second = f"{metric}_first", f"{metric}_second"
    of_volumes = pairs.groupby("image")[[first, second]].mean()
    of_cases = of_volumes.groupby(case_of).mean()
    # The sums' rounding would make differences of what are none, and break ties.
    differences = (of_cases[second] - of_cases[first]).round(12).to_numpy()
    cases = len(differences)
    low, high = bootstrap(cases, lambda drawn: differences[drawn].mean(axis=1))
    effect_low, effect_high = bootstrap(cases, lambda drawn: rank_biserial(differences[drawn]))
    return {
        "cases": cases,
        **counts,
        "first_avg": of_cases[first].mean(),
        "second_avg": of_cases[second].mean(),
        "difference": differences.mean(),
        "low": low,
        "high": high,
        "effect": float(rank_biserial(differences)),
        "effect_low": effect_low,
        "effect_high": effect_high,
        "p": _wilcoxon(differences),
    }


def _wilcoxon(differences: np.ndarray) -> float:
    # Left out here, as scipy would, zeros do not keep it from the exact distribution.
    different = differences[differences != 0]
    if len(differences) < 2 or not len(different):
        return np.nan
    with warnings.catch_warnings():
        # Of few cases and tied sizes some versions have an approximate p only, and say so.
        warnings.simplefilter("ignore")
        return float(stats.wilcoxon(different).pvalue)
