"""Comparison of a study with the published figures, and of several runs with each other.

The published figures are from Gutierrez et al., IEEE Access 2024, doi 10.1109/ACCESS.2024.3353142.
As in `statistics`, intervals and p-values are over cases (patients), never over slices.
"""

import os
from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
import pandas as pd

from sam_lungs.study.metrics import METRICS, metrics_in, volume_metrics_in
from sam_lungs.summary.agreement import TOLERANCE, agreement
from sam_lungs.summary.exposure import exposure_of_run
from sam_lungs.summary.join import JoinedResults, join_results
from sam_lungs.summary.matching import (
    cases_of,
    check_slices,
    pair_slices,
    pair_volumes,
    rename_images,
)
from sam_lungs.summary.paired import holm, permutation_p, rank_biserial, wilcoxon_p
from sam_lungs.summary.patients import Patients
from sam_lungs.summary.published import published_slices as shipped_slices
from sam_lungs.summary.references import check_comparable, mixed_settings
from sam_lungs.summary.statistics import bootstrap_interval
from sam_lungs.utils.errors import InputError

PUBLISHED_VOLUMES = Path(__file__).with_name("published_volumes.csv")
COMPARISON_NAME = "comparison.csv"
SIDES = ("first", "second")


def published_volumes() -> pd.DataFrame:
    """Return the published mean of each of the dataset's 20 volumes, to six decimals.

    Columns `image,slices,lung_slices,jaccard_avg,dice_avg,patient`; names are without `image_`.
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
    NaN without published slices; `lung_slices_published` and `lung_slices_reproduced`; `patient`.

    Raises `InputError` when a volume has a slice twice.
    """
    if published_slices is None:
        published_slices = shipped_slices()
    means = published_volumes().set_index("image").drop(columns="slices")
    means.columns = means.columns.str.removesuffix("_avg")
    published_slices, slices = (
        rename_images(each, means.index) for each in (published_slices, slices)
    )
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


def verdict(comparison: pd.DataFrame) -> str:
    """Return a line that says whether the published figures are reproduced.

    They are when every compared volume has as many slices with lung as published, its mean Jaccard
    index and Dice score are within TOLERANCE of the published ones, and these are `equivalent`, as
    `agreement` says, if there are enough patients to tell.

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
    elif not agreement(comparison)["equivalent"].fillna(True).all():
        start = f"Not reproduced: not equivalent, though {len(table)} of {published} published"
        start += " volumes are"
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


def read_runs(
    folders: Sequence[Path], patients: Patients | None = None, allow_mixed: bool = False
) -> dict[str, JoinedResults]:
    """Join results folders, each named by `run_names`.

    patients: see `join_results`. allow_mixed: volumes may be made in different ways, and runs may
        have other images and reference masks.

    Raises `InputError` when a folder is given twice or cannot be read, and as
    `references.check_comparable` does.
    """
    runs = {
        name: join_results(folder, patients, allow_mixed)
        for name, folder in zip(run_names(folders), folders, strict=True)
    }
    check_comparable(runs, allow_mixed)
    return runs


def run_names(folders: Sequence[Path]) -> list[str]:
    """Return the names of runs: of their results folders.

    If names coincide, all are named by their paths in the folder that holds all of them.

    Raises `InputError` when a folder is given twice.
    """
    paths = [folder.resolve() for folder in folders]
    names = [path.name for path in paths]
    if len(set(names)) < len(names):
        common = os.path.commonpath(paths)
        names = [path.relative_to(common).as_posix() for path in paths]
    for number, (folder, name) in enumerate(zip(folders, names, strict=True)):
        if name in names[:number]:
            raise InputError(f"{folder}: given twice; give each results folder once")
    return names


def compare_runs(runs: dict[str, JoinedResults]) -> pd.DataFrame:
    """Return the differences of runs: a row per pair of runs, in order, and metric that both have.

    Only slices with lung that both runs have are compared, and of these the ones in which both have
    a value of the metric; for metrics of volumes the volumes. A patient counts once, as the mean
    over their volumes of the mean over the slices; patients are those that either run knows.

    Columns: those of `comparison.csv` in docs/results.md. `p` is `permutation_p` of the mean
    difference, `p_holm` is corrected for all p-values of the table. `effect` is `rank_biserial`,
    `effect_p` is `wilcoxon_p`. `effect` and intervals of fewer than FEWEST_CASES cases are NaN.

    Raises `InputError` when there are fewer than two runs, two have no slice in common, or a volume
    has a slice twice.
    """
    if len(runs) < 2:
        raise InputError("one results folder cannot be compared; give two or more")
    rows = []
    for first, second in combinations(runs, 2):
        pairs = _compare_pair(runs[first], runs[second])
        if not pairs:
            raise InputError(
                f"{first} and {second} have no slice with lung in common; compare others, or report"
                " each alone with make_report.py"
            )
        mixed = mixed_settings(runs[first], runs[second])
        of_pair = {"mixed": mixed} if mixed else {}
        rows += [{"first": first, "second": second} | row | of_pair for row in pairs]
    table = pd.DataFrame(rows).astype({"slices": "Int64", "slices_left_out": "Int64"})
    table.insert(table.columns.get_loc("p") + 1, "p_holm", holm(table["p"]))
    return table


def _volume_means(slices: pd.DataFrame) -> pd.DataFrame:
    check_slices(slices)
    by_image = slices.groupby("image")
    return by_image[list(METRICS)].mean().assign(lung_slices=by_image["dice"].count())


def _compare_pair(first: JoinedResults, second: JoinedResults) -> list[dict]:
    """Return a row per metric that both runs have; none when they have no slice in common."""
    pairs = pair_slices(first.slices, second.slices, SIDES)
    volumes = pair_volumes(first.volumes, second.volumes, SIDES)
    volumes["case"] = cases_of(second.volumes, first.volumes)
    with_lung = sum(run.slices[list(METRICS)].notna().all(axis=1).sum() for run in (first, second))
    only_in_one = with_lung - 2 * len(pairs)
    exposures = {
        f"{side}_exposure": exposure_of_run(run.records, pairs["image"].unique()).exposure
        for side, run in zip(SIDES, (first, second), strict=True)
        if len(pairs)
    }
    rows = []
    for metric in metrics_in(_in_both(pairs)):
        columns = [f"{metric}_{side}" for side in SIDES]
        known = pairs.dropna(subset=columns)
        if len(known):
            left_out = only_in_one + len(pairs) - len(known)
            values = known.groupby("image")[columns].mean()
            rows.append(_compare_volumes(metric, values, volumes, len(known), left_out))
    for metric in volume_metrics_in(_in_both(volumes)) if rows else ():
        values = volumes[[f"{metric}_{side}" for side in SIDES]].dropna()
        if len(values):
            rows.append(_compare_volumes(metric, values, volumes, pd.NA, pd.NA))
    return [row | exposures for row in rows]


def _in_both(pairs: pd.DataFrame) -> list[str]:
    """Return the columns that both tables had before they were paired."""
    return [name.removesuffix("_first") for name in pairs if name.endswith("_first")]


def _compare_volumes(
    metric: str, values: pd.DataFrame, volumes: pd.DataFrame, slices: int, slices_left_out: int
) -> dict:
    """Return the row of a metric.

    values: its mean in each volume in the two runs, by image. volumes: `case` and `interactions`.
    """
    cases = values.groupby(volumes["case"]).mean()
    first, second = (column for _, column in cases.items())
    # Rounding errors would turn equal values into differences, and break ties.
    differences = (second - first).round(12).to_numpy()
    low, high = bootstrap_interval(np.mean, differences)
    effect_low, effect_high = bootstrap_interval(rank_biserial, differences)
    interactions = volumes.loc[values.index, [f"interactions_{side}" for side in SIDES]]
    first_interactions, second_interactions = interactions.mean(skipna=False)
    return {
        "metric": metric,
        "cases": len(differences),
        "slices": slices,
        "slices_left_out": slices_left_out,
        "first_avg": first.mean(),
        "second_avg": second.mean(),
        "difference": differences.mean(),
        "low": low,
        "high": high,
        "p": permutation_p(differences),
        # Of few cases it is often exactly 1, and says no more than the number of cases.
        "effect": np.nan if np.isnan(effect_low) else float(rank_biserial(differences)),
        "effect_low": effect_low,
        "effect_high": effect_high,
        "effect_p": wilcoxon_p(differences),
        "first_interactions": first_interactions,
        "second_interactions": second_interactions,
    }
