"""Dice when the points and the box of the protocol are moved at random."""

import numpy as np
import pandas as pd

from sam_lungs.prompts.perturb import jitter, rng_for
from sam_lungs.study.explore.engine import ExploredSlice, columns_of
from sam_lungs.study.explore.options import ExploreOptions

COLUMNS = ("sigma_mm", "repeat")


def explore(of_slice: ExploredSlice, options: ExploreOptions) -> list[dict]:
    """Return a table for each sigma. All sigmas move the prompts in the same directions."""
    tables = []
    for sigma_mm in options.sigma_mm:
        sigma_px_rc = tuple(np.divide(sigma_mm, of_slice.spacing_mm).tolist())
        moved = [
            [
                jitter(
                    target.prompts,
                    sigma_px_rc,
                    rng_for("jitter", of_slice.case, of_slice.index, target.name, repeat),
                    target.reference.shape,
                )
                for target in of_slice.targets
            ]
            for repeat in range(options.repeats)
        ]
        (overlaps,) = of_slice.evaluate(moved, of_slice.masks != 0)
        tables.append(
            {
                "object": "all",
                "sigma_mm": sigma_mm,
                "repeat": list(range(options.repeats)),
                **columns_of(overlaps),
            }
        )
    return tables


def summarize(values: pd.DataFrame, options: ExploreOptions) -> list[tuple]:
    """Return rows (quantity, object, value), see `docs/exploring.md`."""
    rows = []
    for sigma_mm, of_sigma in values.groupby("sigma_mm"):
        dice = of_sigma.groupby("slice")["dice"]
        rows.append((f"mean_dice_sigma_{sigma_mm:g}mm", "all", dice.mean().mean()))
        rows.append((f"spread_sigma_{sigma_mm:g}mm", "all", dice.std(ddof=1).mean()))
    return rows
