"""Comparison of a study with the published figures, and of several runs with each other.

The published figures are from Gutierrez et al., IEEE Access 2024, doi 10.1109/ACCESS.2024.3353142.
As in `statistics`, intervals and p-values are over cases (patients), never over slices.
"""

import os
import warnings
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import stats

from sam_lungs.study.metrics import ALL_METRICS, CLICK_METRICS, METRICS
from sam_lungs.summary.join import JoinedResults, join_results
from sam_lungs.summary.patients import Patients
from sam_lungs.summary.published import published_slices as shipped_slices
from sam_lungs.summary.statistics import bootstrap_interval, patient_of
from sam_lungs.utils.errors import InputError

PUBLISHED_VOLUMES = Path(__file__).with_name("published_volumes.csv")
COMPARISON_NAME = "comparison.csv"
# Largest difference from the published mean of a volume that still counts as reproduced.
TOLERANCE = 0.001


def published_volumes() -> pd.DataFrame:
    """Return the published mean of each of the dataset's 20 volumes, to six decimals.

    Columns `image,slices,lung_slices,jaccard_avg,dice_avg`; names are without `image_`.
    """
    return pd.read_csv(PUBLISHED_VOLUMES)


def compare_with_published(
    slices: pd.DataFrame, published_slices: pd.DataFrame | None = None
) -> pd.DataFrame:
    """Return a row per volume that is both in the study and published.

    slices: columns `image,slice,jaccard,dice`; names are with or without `image_`. Of two volumes
        that differ only in that, the one with the published name is compared.
    published_slices: the same columns, for any of the published volumes; by default those that come
        with the code. Their means, in full precision, replace those of `published_volumes`.

    Columns, in alphabetical order after `image` (without `image_`): for each metric its mean over
    the volume's slices with lung, such as `dice_published` and `dice_reproduced`, and
    `dice_difference`, reproduced minus published; `largest_slice_difference`, absolute, of Dice,
    NaN without published slices; `lung_slices_published` and `lung_slices_reproduced`.

    Raises `InputError` when a volume has a slice twice.
    """
    if published_slices is None:
        published_slices = shipped_slices()
    means = published_volumes().set_index("image").drop(columns="slices")
    means.columns = means.columns.str.removesuffix("_avg")
    published_slices, slices = (_renamed(each, means.index) for each in (published_slices, slices))
    means.update(_volume_means(published_slices))
    table = means.merge(_volume_means(slices), on="image", suffixes=("_published", "_reproduced"))
    for metric in METRICS:
        reproduced, published = (table[f"{metric}_{name}"] for name in ("reproduced", "published"))
        table[f"{metric}_difference"] = reproduced - published
    pairs = pair_slices(published_slices, slices)
    differences = (pairs["dice_reproduced"] - pairs["dice_published"]).abs()
    # Reindexed, because pandas would add the rows of the other volumes to an empty table.
    largest = differences.groupby(pairs["image"]).max().reindex(table.index)
    return table.assign(largest_slice_difference=largest).sort_index(axis=1).reset_index()


def pair_slices(
    first: pd.DataFrame,
    second: pd.DataFrame,
    names: tuple[str, str] = ("published", "reproduced"),
) -> pd.DataFrame:
    """Return the slices with lung that both tables have, matched by image and slice number.

    Images match with the same name, else with and without `image_`; the result has the names of
    `second`.

    first, second: columns `image,slice,jaccard,dice`, NaN in slices without lung.
    names: suffixes of the columns of metrics in the result, as in `dice_published`.

    Raises `InputError` when a volume has a slice twice.
    """
    first = _renamed(first, second["image"])
    first, second = (_slices(table).dropna(subset=METRICS) for table in (first, second))
    return first.merge(second, on=["image", "slice"], suffixes=tuple(f"_{name}" for name in names))


def verdict(comparison: pd.DataFrame) -> str:
    """Return a line that says whether the published figures are reproduced.

    They are when every compared volume has as many slices with lung as published, and its mean
    Jaccard index and Dice score are within TOLERANCE of the published ones.

    comparison: from `compare_with_published`.
    """
    published = len(published_volumes())
    if comparison.empty:
        return f"Nothing to compare: none of the {published} published volumes is here"
    table = comparison.set_index("image")
    same_slices = table["lung_slices_reproduced"] == table["lung_slices_published"]
    differences = table[[f"{metric}_difference" for metric in METRICS]].abs()
    # A volume without a mean is not reproduced.
    largest = differences.fillna(np.inf).max(axis=1)
    agrees = same_slices & (largest <= TOLERANCE)

    if not agrees.all():
        start = f"Not reproduced: {agrees.sum()} of {len(table)} compared volumes ({published}"
        start += " published)"
    elif len(table) < published:
        start = f"Reproduced as far as compared: {len(table)} of {published} published volumes"
    else:
        start = f"Reproduced: {published} of {published} published volumes"
    shift = abs(table["dice_reproduced"].mean() - table["dice_published"].mean())
    # Of the volumes that do not agree, if there are any.
    worst = largest[agrees == agrees.all()].idxmax()
    return (
        f"{start} within {TOLERANCE}; mean Dice differs by {shift:.6f}; {worst} differs most, by"
        f" {largest[worst]:.6f}, with {table['lung_slices_reproduced'][worst]} slices with lung,"
        f" {table['lung_slices_published'][worst]} in the publication"
    )


def read_runs(folders: list[Path], patients: Patients | None = None) -> dict[str, JoinedResults]:
    """Join results folders, each named by its folder.

    If names coincide, all are named by their paths in the folder that holds all of them.

    patients: see `join_results`.

    Raises `InputError` when a folder is given twice or cannot be read.
    """
    paths = [folder.resolve() for folder in folders]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        common = os.path.commonpath(paths)
        names = [path.relative_to(common).as_posix() for path in paths]
    runs = {}
    for folder, name in zip(folders, names, strict=True):
        if name in runs:
            raise InputError(f"{folder}: given twice; give each results folder once")
        runs[name] = join_results(folder, patients)
    return runs


def compare_runs(runs: dict[str, JoinedResults]) -> pd.DataFrame:
    """Return the differences of runs: a row per pair of runs, in order, and metric.

    Only slices with lung that both runs have are compared. A patient counts once, as the mean over
    their volumes of the mean over the slices; patients are those that either run knows.

    Columns: those of `comparison.csv` in docs/results.md. `effect` is `rank_biserial`. `p` is
    two-sided, without the cases that do not differ; NaN for fewer than two cases, and when none
    differs. `p_holm` is corrected for all p-values of the table. Intervals of one case are NaN.

    Raises `InputError` when there are fewer than two runs, two have no slice in common, or a volume
    has a slice twice.
    """
    if len(runs) < 2:
        raise InputError("one results folder cannot be compared; give two or more")
    rows = []
    for first, second in combinations(runs, 2):
        both = [runs[name].slices for name in (first, second)]
        pairs = pair_slices(*both, ("first", "second"))
        if pairs.empty:
            raise InputError(f"{first} and {second} have no slice with lung in common")
        pairs["case"] = patient_of(pairs.merge(_patients(runs[first], runs[second]), how="left"))
        with_lung = sum(len(slices.dropna(subset=METRICS)) for slices in both)
        counts = {"slices": len(pairs), "slices_left_out": with_lung - 2 * len(pairs)}
        for metric in (*METRICS, *(name for name in CLICK_METRICS if f"{name}_first" in pairs)):
            names = {"first": first, "second": second, "metric": metric}
            rows.append(names | _compare_cases(pairs, metric, counts))
    table = pd.DataFrame(rows)
    return table.assign(p_holm=holm(table["p"]))


def rank_biserial(differences: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the matched-pairs rank-biserial correlation along an axis, -1..1.

    The absolute differences are ranked. The result is the positive differences' share of the ranks
    minus the negative differences' share. Zeros are left out; the result is 0 when all are zero.

    Kerby, Comprehensive Psychology 2014, doi 10.2466/11.IT.3.1.
    """
    # Zeros have the lowest ranks. Without them all other ranks are lower by their number.
    zeros = (differences == 0).sum(axis=axis, keepdims=True)
    ranks = stats.rankdata(np.abs(differences), axis=axis) - zeros
    count = (differences != 0).sum(axis=axis)
    rank_sum = np.maximum(count * (count + 1) / 2, 1)
    return (np.sign(differences) * ranks).sum(axis=axis) / rank_sum


def holm(p: pd.Series) -> pd.Series:
    """Return p-values corrected for their number; NaN stays NaN and does not count.

    Holm, Scandinavian Journal of Statistics 1979, 6(2):65-70.
    """
    ordered = p.dropna().sort_values()
    factors = np.arange(len(ordered), 0, -1)
    return (ordered * factors).clip(upper=1).cummax().reindex(p.index)


def _renamed(table: pd.DataFrame, names: Iterable[str]) -> pd.DataFrame:
    """Return a table of images, renamed to those of `names` that differ only in `image_`.

    A name that is in both stays: of `a` and `image_a`, only one can be `a`.
    """
    images = set(table["image"])
    bare = {name.removeprefix("image_"): name for name in set(names) - images}
    renamed = {
        image: bare.get(image.removeprefix("image_"), image) for image in images - set(names)
    }
    return table.assign(image=table["image"].map(lambda image: renamed.get(image, image)))


def _patients(first: JoinedResults, second: JoinedResults) -> pd.DataFrame:
    """Return the columns image, with the names of `second`, and patient, as far as it is known."""
    both = [second.volumes, _renamed(first.volumes, second.volumes["image"])]
    return pd.concat(both).groupby("image", as_index=False)["patient"].first()


def _slices(table: pd.DataFrame) -> pd.DataFrame:
    """Return the columns image, slice and those of metrics of a table of slices."""
    table = table[["image", "slice", *(name for name in ALL_METRICS if name in table)]]
    duplicates = table[table.duplicated(["image", "slice"])]
    if len(duplicates):
        image, number = duplicates.iloc[0][["image", "slice"]]
        raise InputError(f"{image}: has slice {number} twice; process it again")
    return table


def _volume_means(slices: pd.DataFrame) -> pd.DataFrame:
    by_image = _slices(slices).groupby("image")
    return by_image[list(METRICS)].mean().assign(lung_slices=by_image["dice"].count())


def _compare_cases(pairs: pd.DataFrame, metric: str, counts: dict) -> dict:
    volumes = pairs.groupby(["case", "image"])[[f"{metric}_first", f"{metric}_second"]].mean()
    cases = volumes.groupby("case").mean()
    first, second = (column for _, column in cases.items())
    # Rounding errors would turn equal values into differences, and break ties.
    differences = (second - first).round(12).to_numpy()
    low, high = bootstrap_interval(np.mean, differences)
    effect_low, effect_high = bootstrap_interval(rank_biserial, differences)
    return {
        "cases": len(differences),
        **counts,
        "first_avg": first.mean(),
        "second_avg": second.mean(),
        "difference": differences.mean(),
        "low": low,
        "high": high,
        "effect": float(rank_biserial(differences)),
        "effect_low": effect_low,
        "effect_high": effect_high,
        "p": _wilcoxon(differences),
    }


def _wilcoxon(differences: np.ndarray) -> float:
    # Zeros are removed here, because with zeros SciPy does not use the exact distribution.
    nonzero = differences[differences != 0]
    if len(differences) < 2 or not len(nonzero):
        return np.nan
    with warnings.catch_warnings():
        # For few cases with ties some versions warn that p is approximate.
        warnings.simplefilter("ignore")
        return float(stats.wilcoxon(nonzero).pvalue)
