"""The published figures of the paper's 138 chest X-rays, and a study against them.

No results of single X-rays are published. The means are from Gutiérrez et al., IEEE Access 2024,
doi 10.1109/ACCESS.2024.3353142. The quartiles are those of its box plot, read off the vector
drawing (paper/boxplot_montgomery.pdf in github.com/i3uex/sam at 282dee5) within 0.0001.
"""

from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sam_lungs.data.montgomery import CASES
from sam_lungs.study.metrics import METRICS
from sam_lungs.summary.agreement import TOLERANCE

PUBLISHED_XRAYS = Path(__file__).with_name("published_xrays.csv")


class XrayComparison(NamedTuple):
    """verdict: a line for readers. table: columns `metric,figure,published,reproduced,difference`;
    the figures are mean, 25%, 50%, 75%; no rows unless all X-rays are there.
    """

    verdict: str
    table: pd.DataFrame


def compare_with_published_xrays(slices: pd.DataFrame) -> XrayComparison | None:
    """Compare the X-rays of a study, as a whole, with the published figures; `None` without any.

    slices: columns `image,jaccard,dice`; names are with or without `image_`.
    """
    xrays = slices[slices["image"].str.removeprefix("image_").isin(CASES)].dropna(subset=METRICS)
    if xrays.empty:
        return None
    table = pd.read_csv(PUBLISHED_XRAYS)
    number = f"{xrays['image'].nunique()} of {len(CASES)} published X-rays"
    if len(xrays) != len(CASES):
        verdict = f"Nothing to compare: {number} are here, and the published figures are of all"
        return XrayComparison(verdict, table.head(0))
    # With linear interpolation, as in the box plot.
    here = xrays[list(METRICS)].describe()
    reproduced = [here.loc[row.figure, row.metric] for row in table.itertuples()]
    table = table.assign(reproduced=reproduced, difference=reproduced - table["published"])
    worst = table.loc[table["difference"].abs().idxmax()]
    shift = abs(worst["difference"])
    verdict = (
        f"{'Reproduced' if shift <= TOLERANCE else 'Not reproduced'}: the means and quartiles of"
        f" {number}, within {TOLERANCE}; {worst['metric']} {worst['figure']} differs most, by"
        f" {shift:.6f}"
    )
    return XrayComparison(verdict, table)
