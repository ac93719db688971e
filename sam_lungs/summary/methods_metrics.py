"""The metrics and statistics of a study's tables -> sentences that define them."""

import re
from collections.abc import Iterable
from typing import NamedTuple

import pandas as pd

from sam_lungs.summary.join import JoinedResults
from sam_lungs.summary.methods_wording import References, code, count, listed, sentence
from sam_lungs.summary.paired import EXACT_CASES
from sam_lungs.summary.statistics import (
    APPROXIMATE_BELOW,
    CONFIDENCE,
    FEWEST_CASES,
    RESAMPLES,
    SEED,
)

TOLERANCE = r"([\d.e+-]+)mm"
SURFACES = "the surfaces of both masks, which lie between the voxels"


class Definition(NamedTuple):
    """pattern: of the columns that it defines. meaning: the text after the name of the metric,
    where {tolerances} is replaced. citations: keys of `citations.csv`.
    """

    pattern: str
    meaning: str
    citations: tuple[str, ...] = ()


DEFINITIONS = (
    Definition(
        "jaccard",
        "the Jaccard index of a slice with lung, the intersection of the predicted mask and the"
        " reference mask over their union, 0 if the predicted mask is empty",
        ("jaccard",),
    ),
    Definition(
        "dice",
        "the Dice score of a slice with lung, twice the intersection over the sum of both areas, 0"
        " if the predicted mask is empty",
        ("dice",),
    ),
    Definition(
        f"nsd(?:_{TOLERANCE})?",
        "the normalized surface Dice of a slice with lung, the share of both outlines, which lie"
        " between the pixels, that is at most {tolerances} from the other outline, 0 if the"
        " predicted mask is empty",
        ("nsd",),
    ),
    Definition(
        "hd95_mm",
        "the 95 % Hausdorff distance of a slice with lung in mm, the larger one of the two 95th"
        " percentiles of the distances from one outline to the other; where the predicted mask is"
        " empty it has no value, so such slices are in no mean of it",
    ),
    Definition(
        "hd95_penalised_mm",
        "the same distance, and where the predicted mask is empty the diagonal of the slice",
    ),
    Definition(
        "(?:jaccard|dice)_mask_[123]",
        "the Jaccard index and the Dice score of each of the three masks that the model predicts"
        " for a click, united over the labels",
    ),
    Definition(
        "(?:jaccard|dice)_oracle",
        "those of the best of the three masks of each label by its Dice score, which needs the"
        " reference mask and is not a result that a user gets",
    ),
    Definition(
        "volume_dice|lung_slices_dice",
        "one Dice score of the pixels of all slices with lung of a volume; slices without lung do"
        " not count",
        ("dice",),
    ),
    Definition(
        "dice_3d",
        "one Dice score of all voxels of a volume",
        ("dice",),
    ),
    Definition(
        f"nsd_3d_{TOLERANCE}",
        f"the normalized surface Dice of a volume, with its three spacings: the share of {SURFACES}"
        ", that is at most {tolerances} from the other surface",
        ("nsd",),
    ),
    Definition(
        "hd95_3d_mm",
        "the 95 % Hausdorff distance of a volume in mm, with its three spacings: the larger one of"
        f" the two 95th percentiles of the distances between {SURFACES}",
    ),
    Definition(
        "hd95_3d_penalised_mm",
        "the same distance, and where the predicted volume is empty the diagonal of the volume",
    ),
    Definition(
        "interactions",
        "the effort of a user, the number of points plus two per box in the slices whose prompts"
        " are drawn",
    ),
)


def metrics_of(runs: Iterable[JoinedResults]) -> list[str]:
    """Return the metrics that at least one slice or volume of the runs has, in a fixed order."""
    tables = [table for run in runs for table in (run.slices, run.volumes)]
    columns = [name for each in tables for name in each.dropna(axis="columns", how="all")]
    return [
        name
        for each in DEFINITIONS
        for name in dict.fromkeys(columns)
        if re.fullmatch(each.pattern, name)
    ]


def describe_metrics(
    metrics: Iterable[str], tolerances: Iterable[float], references: References
) -> str:
    """Return a sentence for each kind of metric.

    tolerances: in mm, of results whose columns do not name theirs.
    """
    sentences = []
    for each in DEFINITIONS:
        found = {name: re.fullmatch(each.pattern, name) for name in metrics}
        found = {name: match for name, match in found.items() if match}
        if not found:
            continue
        named = [match[1] for match in found.values() if match.re.groups and match[1]]
        distances = named or [f"{tolerance:g}" for tolerance in tolerances]
        distance = f"{listed(distances)} mm" if distances else "a distance that is not recorded"
        meaning = each.meaning.format(tolerances=distance) + references.cite(*each.citations)
        verb = "is" if len(found) == 1 else "are"
        sentences.append(f"{listed(map(code, found))} {verb} {meaning}.")
    return " ".join(sentences)


def describe_statistics(
    runs: dict[str, JoinedResults], comparison: pd.DataFrame | None, references: References
) -> str:
    """Return sentences for the statistics in `intervals.csv` and `comparison.csv`."""
    level = f"{CONFIDENCE * 100:g} %"
    clauses = [
        "the statistical unit is the patient, because slices of one patient are alike; values of"
        " slices were averaged over each volume, and those over each patient's volumes",
    ]
    clauses.append(
        f"the means over patients and over volumes have {level} percentile bootstrap"
        f" intervals{references.cite('bootstrap')} from {RESAMPLES:,} draws of patients with all"
        f" their volumes (seed {SEED})"
    )
    patients = min(len(run.cases) for run in runs.values())
    if patients < FEWEST_CASES:
        clauses.append(f"with fewer than {FEWEST_CASES} patients no interval is given")
    elif patients < APPROXIMATE_BELOW:
        clauses.append(f"with fewer than {APPROXIMATE_BELOW} patients intervals are approximate")
    if comparison is not None:
        clauses += _comparison(comparison, level, references)
    return " ".join(map(sentence, clauses))


def _comparison(table: pd.DataFrame, level: str, references: References) -> list[str]:
    number = count(table["p"].count(), "p-value")
    return [
        "runs were compared pair by pair on the slices with lung that both have, over patients: the"
        f" mean difference has a {level} percentile bootstrap interval from {RESAMPLES:,} draws of"
        f" patients (seed {SEED})",
        f"p-values are those of the two-sided permutation test of the mean difference"
        f"{references.cite('permutation')}, exact where at most {EXACT_CASES} patients differ, else"
        f" from {RESAMPLES:,} permutations (seed {SEED}); Holm's correction"
        f"{references.cite('holm')} is for all {number}",
        f"the effect size is the matched-pairs rank-biserial correlation"
        f"{references.cite('rank_biserial')}, with Wilcoxon's signed-rank test"
        f"{references.cite('wilcoxon')}, two-sided",
    ]
