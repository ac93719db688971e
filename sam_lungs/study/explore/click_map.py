"""Dice as a function of where one clicks: `map` and `negative_map`.

Gutiérrez et al. 2024, doi 10.1109/ACCESS.2024.3353142, moved the negative point along one column;
here a point is moved over the plane.
"""

import numpy as np
import pandas as pd

from sam_lungs.prompts.grid import click_alone, click_grid, with_click
from sam_lungs.prompts.protocols import PROTOCOLS
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.study.explore.engine import ExploredSlice, Target, columns_of
from sam_lungs.study.explore.options import ExploreOptions

COLUMNS = ("row", "column")
SHARES = (0.8, 0.9)


def explore(of_slice: ExploredSlice, options: ExploreOptions) -> list[dict]:
    """Return a table for each target: of all objects together, and of each alone.

    Besides `COLUMNS` it has `weight`: how many pixels the position stands for. These are the pixels
    of its block inside the object, if the position is inside; with `negative_map` both are outside.
    """
    targets = of_slice.targets
    if of_slice.objects == "together" and len(of_slice.names) > 1:
        targets = [*targets, *of_slice.apart]
    grids = [_grid(target, options) for target in targets]
    if options.alone:
        # The same click serves all targets.
        whole = np.unique(np.concatenate(grids), axis=0)
        references = [target.reference for target in targets]
        of_whole = of_slice.evaluate([[click_alone(point)] for point in whole], *references)
    tables = []
    for number, (target, grid) in enumerate(zip(targets, grids, strict=True)):
        if options.alone:
            place = {tuple(point): at for at, point in enumerate(whole.tolist())}
            overlaps = [of_whole[number][place[tuple(point)]] for point in grid.tolist()]
        else:
            label = int(options.kind == "map")
            prompts = [[with_click(target.prompts, point, label)] for point in grid]
            (overlaps,) = of_slice.evaluate(prompts, target.reference)
        is_inside = target.reference == (options.kind == "map")
        tables.append(
            {
                "object": target.name,
                "row": grid[:, 0].tolist(),
                "column": grid[:, 1].tolist(),
                **columns_of(overlaps),
                "weight": _weights(is_inside, grid, options.step_pixels),
            }
        )
    return tables


def summarize(values: pd.DataFrame, options: ExploreOptions) -> list[tuple]:
    """Return rows (quantity, object, value), see `docs/exploring.md`."""
    rows = []
    for name, of_all in values.groupby("object", sort=False):
        of_object = of_all[of_all["weight"] > 0]
        # The grid may have no position inside a small object.
        missed = of_all["slice"].nunique() - of_object["slice"].nunique()
        rows.append(("missed_slices", name, missed))
        if of_object.empty:
            continue
        slices = pd.DataFrame([_of_slice(each) for _, each in of_object.groupby("slice")])
        rows += [(quantity, name, value) for quantity, value in slices.mean().items()]
        for extreme, at in (
            ("worst", of_object["dice"].idxmin()),
            ("best", of_object["dice"].idxmax()),
        ):
            for column in ("dice", "row", "column", "slice"):
                rows.append((f"{extreme}_{column}", name, of_object.at[at, column]))
    return rows


def _grid(target: Target, options: ExploreOptions) -> np.ndarray:
    box_rc = make_prompts(target.reference.astype(np.uint8), PROTOCOLS["box_only"]).box_rc
    return click_grid(box_rc, options.margin_pixels, options.step_pixels, target.reference.shape)


def _weights(is_inside: np.ndarray, grid: np.ndarray, step: int) -> list[int]:
    """Return the weight of each position, see `explore`. is_inside: (rows, columns) bool."""
    blocks = grid // step
    counts = np.add.reduceat(
        np.add.reduceat(is_inside.astype(int), np.arange(0, is_inside.shape[0], step), axis=0),
        np.arange(0, is_inside.shape[1], step),
        axis=1,
    )
    return (counts[tuple(blocks.T)] * is_inside[tuple(grid.T)]).tolist()


def _of_slice(values: pd.DataFrame) -> dict[str, float]:
    """Return the quantities of one slice, of the positions that stand for pixels."""
    dice, weight = values["dice"], values["weight"]
    ordered = values.sort_values("dice", kind="stable")
    lower = ordered["weight"].cumsum() >= 0.05 * weight.sum()
    return {
        **{f"share_dice_{each:g}": weight[dice >= each].sum() / weight.sum() for each in SHARES},
        "random_click_mean": (dice * weight).sum() / weight.sum(),
        "random_click_q05": ordered["dice"][lower].iloc[0],
    }
