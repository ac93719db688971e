"""The kinds of explorations by name, and what they need of a model."""

from collections.abc import Callable
from typing import NamedTuple

import pandas as pd

from sam_lungs.segmenters.base import PROMPT_KINDS
from sam_lungs.study.explore import best, click_map, clicks, jitter, points
from sam_lungs.study.explore.engine import ExploredSlice
from sam_lungs.study.explore.options import ExploreOptions


class Kind(NamedTuple):
    """A kind of exploration.

    explore: returns tables of a slice; a table is {column: list, or the value of all rows}.
    summarize: table of all slices -> rows (quantity, object, value).
    columns: of `values.csv`, between `object` and `jaccard`.
    prompts: the kinds of prompts that it makes besides those of the protocol, of `PROMPT_KINDS`.
    """

    explore: Callable[[ExploredSlice, ExploreOptions], list[dict]]
    summarize: Callable[[pd.DataFrame, ExploreOptions], list[tuple]]
    columns: tuple[str, ...]
    prompts: tuple[str, ...] = ()


KINDS = {
    "map": Kind(click_map.explore, click_map.summarize, click_map.COLUMNS, ("points",)),
    "negative_map": Kind(click_map.explore, click_map.summarize, click_map.COLUMNS, ("negative",)),
    "jitter": Kind(jitter.explore, jitter.summarize, jitter.COLUMNS),
    "points": Kind(points.explore, points.summarize, points.COLUMNS, PROMPT_KINDS),
    "clicks": Kind(clicks.explore, clicks.summarize, clicks.COLUMNS, ("points", "negative")),
    "best": Kind(best.explore, best.summarize, best.COLUMNS, ("points", "negative")),
}
