"""Figures of a study for print.

Above MANY_VOLUMES they show distributions, and the worst and median volumes.

Dice score, Jaccard index and predicted IoU have no unit. They are NaN in slices without lung.
"""

import warnings
from dataclasses import replace
from itertools import cycle
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter
from scipy import stats

from sam_lungs.prompts.protocols import PROTOCOLS
from sam_lungs.study.metrics import METRICS
from sam_lungs.summary.figure_style import (
    ALL_COLOR,
    METRIC_NAMES,
    NO_LUNG_COLOR,
    PAGE_WIDTH_INCHES,
    STYLE,
    SUBSET_STYLES,
    short_name,
)
from sam_lungs.summary.figures_of_many import draw_density, draw_distributions, worst_and_median
from sam_lungs.summary.statistics import CONFIDENCE
from sam_lungs.utils.files import atomic_write

# With more volumes, figures show distributions and some volumes in place of every one.
MANY_VOLUMES = 60
# By file type: without the time of writing, the same figure gives the same bytes.
METADATA = {"svg": {"Date": None}, "png": {}, "pdf": {"CreationDate": None}}


@rc_context(STYLE)
def draw_box_plots(slices: pd.DataFrame) -> Figure:
    """Draw box plots of both metrics over slices with lung: all, each subset, each volume.

    The label of a box has its number n of slices. One subset alone has no box of its own. Of more
    than MANY_VOLUMES, see `draw_distributions`.

    slices: columns `image`, `subset`, `jaccard`, `dice`.
    """
    slices = _with_style(slices)
    with_lung = slices[slices["dice"].notna()]
    if _are_many(slices):
        return draw_distributions(with_lung)
    boxes = [("all", with_lung, ALL_COLOR)]
    for column in (["subset"] if slices["subset"].nunique() > 1 else []) + ["image"]:
        for name, rows in with_lung.groupby(column, sort=column == "subset"):
            boxes.append((name, rows, rows["color"].iloc[0]))

    figure = Figure(figsize=(PAGE_WIDTH_INCHES, 7.5))
    panels = figure.subplots(len(METRICS), 1, sharex=True, sharey=True)
    for axes, metric in zip(panels, METRICS, strict=True):
        drawn = axes.boxplot([rows[metric] for _, rows, _ in boxes])
        for patch, (_, _, color) in zip(drawn["boxes"], boxes, strict=True):
            patch.set_facecolor(color)
        axes.set_ylabel(METRIC_NAMES[metric])
    labels = [f"{short_name(name)} (n = {len(rows)})" for name, rows, _ in boxes]
    axes.set_xticks(range(1, len(boxes) + 1), labels, rotation=90)
    figure.legend(
        handles=[drawn["medians"][0], drawn["means"][0], *(subsets := _subset_patches(slices))],
        labels=["median", "mean", *(patch.get_label() for patch in subsets)],
        title="box: quartiles; whiskers: at most 1.5 box lengths; dots: slices beyond the whiskers",
        loc="outside upper center",
        ncols=6,
    )
    return figure


@rc_context(STYLE)
def draw_along_slices(slices: pd.DataFrame) -> Figure:
    """Draw Dice along the slices of each volume, one panel each; slices without lung are grey.

    Of more than MANY_VOLUMES, those of `worst_and_median`.

    slices: columns `image`, `subset`, `slice`, `dice`.
    """
    slices = _with_style(slices)
    titles, columns = {image: short_name(image) for image in slices["image"].unique()}, 4
    if _are_many(slices):
        titles, columns = worst_and_median(slices), 3
    slices = slices[slices["image"].isin(titles)]
    columns = min(len(titles), columns)
    rows = -(-len(titles) // columns)
    figure = Figure(figsize=(PAGE_WIDTH_INCHES, max(2.5, 1.35 * rows + 0.5)))
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).ravel()
    for (image, title), axes in zip(titles.items(), panels, strict=False):
        volume = slices[slices["image"] == image].sort_values("slice")
        edges = np.append(volume["slice"], volume["slice"].iloc[-1] + 1) - 0.5
        without_lung = {"color": NO_LUNG_COLOR, "transform": axes.get_xaxis_transform()}
        axes.stairs(volume["dice"].isna(), edges, fill=True, **without_lung)
        # With markers, because a line does not show a slice between two gaps.
        style = {"color": volume["color"].iloc[0], "marker": ".", "markersize": 2}
        axes.plot(volume["slice"], volume["dice"], **style)
        axes.set(xlim=(edges[0], edges[-1]), title=title)
    for axes in panels[len(titles) :]:
        axes.set_axis_off()
    figure.supxlabel("slice number")
    figure.supylabel(METRIC_NAMES["dice"])
    figure.legend(
        handles=[*_subset_patches(slices), Patch(color=NO_LUNG_COLOR, label="no lung")],
        loc="outside upper center",
        ncols=6,
    )
    return figure


@rc_context(STYLE)
def draw_predicted_iou(slices: pd.DataFrame) -> Figure | None:
    """Draw Dice of the slices with lung against the predicted IoU; `None` where there is none.

    Of more than MANY_VOLUMES, see `draw_density`.

    slices: columns `image`, `subset`, `dice` and perhaps `score`, the predicted IoU.
    """
    known = slices.reindex(columns=["image", "subset", "score", "dice"])
    known = known.dropna(subset=["score", "dice"])
    if known.empty:
        return None
    draw = draw_density if _are_many(known) else _scatter
    figure = draw(known, "score", "dice")
    axes = figure.axes[0]
    iou = np.linspace(known["score"].min(), known["score"].max(), 100)
    axes.plot(iou, 2 * iou / (1 + iou), "k--", label="Dice if the predicted IoU were exact")
    axes.set_xlabel("predicted IoU (the model's own estimate of the Jaccard index)")
    axes.set_ylabel(METRIC_NAMES["dice"])
    # Ranks need different values; otherwise SciPy warns.
    if known[["score", "dice"]].nunique().min() > 1:
        correlation = stats.spearmanr(known["score"], known["dice"]).statistic
        axes.set_title(f"Spearman's correlation {correlation:.2f} over {len(known)} slices")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@rc_context(STYLE)
def draw_published(pairs: pd.DataFrame) -> Figure:
    """Draw the reproduced Dice of slices against the published Dice, and the line of equal values.

    pairs: columns `subset`, `dice_published`, `dice_reproduced`.
    """
    known = pairs.dropna(subset=["dice_published", "dice_reproduced"])
    figure = _scatter(known, "dice_published", "dice_reproduced")
    axes = figure.axes[0]
    axes.axline((1, 1), slope=1, color="black", linestyle="--", label="equal")
    axes.set(aspect="equal", xlabel="published Dice score", ylabel="reproduced Dice score")
    axes.set_title(f"{len(known)} slices with lung")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


@rc_context(STYLE)
def draw_prompt_effects(intervals: dict[str, pd.DataFrame]) -> Figure:
    """Draw the mean Dice of each run with its interval.

    A second panel shows Dice over the offset of the negative point, if at least two runs have the
    names of protocols that are the paper's with another offset, or none.

    intervals: by run, as `statistics.estimate` returns them. Drawn are the means over patients and
        their intervals; where one is NaN, only the mean.
    """
    table = pd.concat(intervals).query("subset == 'all' and metric == 'dice'").droplevel(1)
    means = table["case_avg"]
    # How far the intervals extend below and above the means.
    reach = table[["case_low", "case_high"]].sub(means, axis=0).abs()
    offsets = {
        protocol.negative_offset_rows: name
        for name, protocol in PROTOCOLS.items()
        if name in intervals and replace(protocol, negative_offset_rows=0) == PROTOCOLS["paper"]
    }
    figure = Figure(figsize=(PAGE_WIDTH_INCHES, max(2.6, 0.8 + 0.25 * len(table))))
    by_name, *by_offset = figure.subplots(1, 1 + (len(offsets) > 1), squeeze=False).flat
    style = {"marker": "o", "color": SUBSET_STYLES[0][0]}
    average = f"mean {METRIC_NAMES['dice']} of patients"
    rows = range(len(table))
    by_name.errorbar(means, rows, xerr=reach.to_numpy().T, linestyle="", **style)
    by_name.set_yticks(rows, table.index)
    by_name.invert_yaxis()
    interval = f", {CONFIDENCE:.0%} interval" if reach.notna().any(axis=None) else ""
    by_name.set(xlabel=average + interval, ylabel="run")
    for axes in by_offset:
        moved = sorted(offsets)
        names = [offsets[rows_down] for rows_down in moved]
        axes.errorbar(moved, means[names], yerr=reach.loc[names].to_numpy().T, **style)
        axes.set(xlabel="offset of the negative point (rows down)", ylabel=average)
    return figure


@rc_context(STYLE)
def draw_effort(runs: pd.DataFrame) -> Figure:
    """Draw the mean Dice of runs over the interactions per volume, a line for each model.

    runs: columns `model`, `interactions`, `dice`, and its interval `low`, `high`, which may be NaN.
    """
    figure = Figure(figsize=(PAGE_WIDTH_INCHES, 3.4))
    axes = figure.subplots()
    for (color, marker), (model, rows) in zip(
        cycle(SUBSET_STYLES), runs.groupby("model", sort=False), strict=False
    ):
        rows = rows.sort_values("interactions")
        reach = rows[["low", "high"]].sub(rows["dice"], axis=0).abs()
        style = {"color": color, "marker": marker, "markerfacecolor": "none", "label": model}
        axes.errorbar(rows["interactions"], rows["dice"], yerr=reach.to_numpy().T, **style)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set(xlabel="interactions per volume: points, and 2 for each box", ylabel="mean Dice score")
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as `name.svg`, `name.png` and `name.pdf`; it gives the same bytes again.

    Raises `InputError` when they cannot be written.
    """
    with rc_context(STYLE), warnings.catch_warnings():
        # Letters that the font does not have are drawn as boxes.
        warnings.filterwarnings("ignore", "Glyph .* missing from font")
        for suffix, metadata in METADATA.items():
            with atomic_write(folder / f"{name}.{suffix}") as temporary:
                figure.savefig(temporary, metadata=metadata)


def named_subsets(subsets: pd.Series) -> pd.Series:
    """Return the subset of each slice, with a name for those whose subset is not known."""
    return subsets.fillna("no subset" if subsets.notna().any() else "slices")


def _with_style(slices: pd.DataFrame) -> pd.DataFrame:
    """Return slices with a name for every subset, and its `color` and `marker`.

    Styles repeat when there are many subsets.
    """
    subsets = named_subsets(slices["subset"])
    styles = dict(zip(sorted(subsets.unique()), cycle(SUBSET_STYLES), strict=False))
    color, marker = (
        subsets.map({name: style[i] for name, style in styles.items()}) for i in (0, 1)
    )
    return slices.assign(subset=subsets, color=color, marker=marker)


def _are_many(slices: pd.DataFrame) -> bool:
    return slices["image"].nunique() > MANY_VOLUMES


def _subset_patches(slices: pd.DataFrame) -> list[Patch]:
    """Return the entries of the legend for the colours of several subsets; one needs none."""
    styles = slices.drop_duplicates("subset").sort_values("subset")
    patches = [Patch(color=row.color, label=row.subset) for row in styles.itertuples()]
    return patches if len(patches) > 1 else []


def _scatter(slices: pd.DataFrame, x: str, y: str) -> Figure:
    """Draw a marker for each slice, in the style of its subset."""
    figure = Figure(figsize=(5, 4.5))
    axes = figure.subplots()
    for (subset, color, marker), rows in _with_style(slices).groupby(["subset", "color", "marker"]):
        style = {"color": color, "marker": marker, "markerfacecolor": "none", "linestyle": ""}
        axes.plot(rows[x], rows[y], label=subset, **style)
    return figure
