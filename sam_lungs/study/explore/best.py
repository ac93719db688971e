"""How good prompts could be: a search that knows the reference mask, see `prompts.search`."""

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from sam_lungs.prompts.perturb import rng_for
from sam_lungs.prompts.protocols import Prompts
from sam_lungs.prompts.search import search_best
from sam_lungs.study.explore.engine import ExploredSlice, Target, columns_of
from sam_lungs.study.explore.options import ExploreOptions
from sam_lungs.study.metrics import Overlap
from sam_lungs.study.results import as_dict

COLUMNS = ("evaluations", "start_dice", "prompts")


def explore(of_slice: ExploredSlice, options: ExploreOptions) -> list[dict]:
    """Return a table of one row for each target."""
    return [_search(of_slice, target, options) for target in of_slice.targets]


def summarize(values: pd.DataFrame, options: ExploreOptions) -> list[tuple]:
    """Return rows (quantity, object, value), see `docs/exploring.md`."""
    rows = []
    for name, of_object in values.groupby("object", sort=False):
        start, best = of_object["start_dice"].mean(), of_object["dice"].mean()
        rows += [("start_dice", name, start), ("best_dice", name, best)]
        rows.append(("gain", name, best - start))
    return rows


def _search(of_slice: ExploredSlice, target: Target, options: ExploreOptions) -> dict:
    measured: list[Overlap] = []

    def score(prompts: Sequence[Prompts]) -> np.ndarray:
        (overlaps,) = of_slice.evaluate([[each] for each in prompts], target.reference)
        measured.extend(overlaps)
        return np.array([each.dice for each in overlaps])

    labels = len(of_slice.apart) if target is of_slice.together else 1
    found = search_best(
        score,
        target.prompts,
        target.reference,
        (options.most_points * labels, options.most_points),
        options.budget,
        rng_for("best", of_slice.case, of_slice.index, target.name),
        options.margin_pixels,
    )
    return {
        "object": target.name,
        "evaluations": len(measured),
        "start_dice": measured[0].dice,
        "prompts": json.dumps(as_dict(found.prompts)),
        **columns_of([measured[int(np.argmax(found.values))]]),
    }
