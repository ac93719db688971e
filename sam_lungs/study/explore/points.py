"""Dice as a function of the number of points, which are sampled from the reference masks.

As the comparison of SAM, SAM 2, MedSAM and MedSAM 2 on lungs, doi 10.1007/s10278-025-01778-y.
"""

from dataclasses import replace

import pandas as pd

from sam_lungs.prompts.perturb import rng_for
from sam_lungs.prompts.sampling import sample_points
from sam_lungs.study.explore.engine import ExploredSlice, columns_of
from sam_lungs.study.explore.options import ExploreOptions

COLUMNS = ("points", "box", "repeat", "rule")


def explore(of_slice: ExploredSlice, options: ExploreOptions) -> list[dict]:
    """Return a table for each rule and number of points, with and without the box.

    More points of a repeat include its fewer ones. The rule `spread` has one repeat, because it is
    not random.
    """
    tables = []
    for rule in options.rule:
        repeats = range(options.repeats if rule == "random" else 1)
        for points in options.points_per_object:
            sampled = [
                sample_points(
                    of_slice.masks,
                    points,
                    rule,
                    rng_for("points", of_slice.case, of_slice.index, repeat),
                    of_slice.objects,
                    options.margin_pixels,
                )
                for repeat in repeats
            ]
            without_box = [[replace(each, box_rc=None) for each in united] for united in sampled]
            for box, prompts in enumerate((without_box, sampled)):
                (overlaps,) = of_slice.evaluate(prompts, of_slice.masks != 0)
                tables.append(
                    {
                        "object": "all",
                        "points": points,
                        "box": box,
                        "repeat": list(repeats),
                        "rule": rule,
                        **columns_of(overlaps),
                    }
                )
    return tables


def summarize(values: pd.DataFrame, options: ExploreOptions) -> list[tuple]:
    """Return rows (quantity, object, value), see `docs/exploring.md`."""
    rows = []
    for (rule, points, box), group in values.groupby(["rule", "points", "box"]):
        name = f"mean_dice_{points}_points" + "_box" * box + "_spread" * (rule == "spread")
        rows.append((name, "all", group.groupby("slice")["dice"].mean().mean()))
    return rows
