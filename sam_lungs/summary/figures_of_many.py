"""What the figures of a study with very many volumes show in place of every volume and slice."""

import numpy as np
import pandas as pd
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from sam_lungs.study.metrics import METRICS
from sam_lungs.summary.figure_style import ALL_COLOR, METRIC_NAMES, PAGE_WIDTH_INCHES, short_name

# So many volumes each are drawn along their slices.
WORST_VOLUMES = 6
MEDIAN_VOLUMES = 6
# With more subsets, only all volumes together are drawn.
MOST_SUBSETS = 20
BINS = 40
# Of the distance between two histograms.
HISTOGRAM_WIDTH = 0.65
WHISKERS_PERCENT = (5, 95)


def draw_distributions(slices: pd.DataFrame) -> Figure:
    """Draw how both metrics are distributed, over slices and over the means of volumes.

    The label of a distribution has its number n of slices or volumes.

    slices: with lung; columns `image`, `subset`, `color`, `jaccard`, `dice`.
    """
    volumes = slices.groupby("image").agg(
        {"subset": "first", "color": "first"} | dict.fromkeys(METRICS, "mean")
    )
    figure = Figure(figsize=(PAGE_WIDTH_INCHES, 5.5))
    panels = figure.subplots(len(METRICS), 2, sharex="col", sharey=True)
    tables = {"slices with lung": slices, "volumes: means of their slices": volumes}
    for column, (title, table) in enumerate(tables.items()):
        groups = [("all", table, ALL_COLOR)]
        if 1 < table["subset"].nunique() <= MOST_SUBSETS:
            groups += [
                (name, rows, rows["color"].iloc[0]) for name, rows in table.groupby("subset")
            ]
        for axes, metric in zip(panels[:, column], METRICS, strict=True):
            values = [rows[metric] for _, rows, _ in groups]
            edges = np.linspace(values[0].min(), values[0].max(), BINS + 1)
            for place, (each, (_, _, color)) in enumerate(zip(values, groups, strict=True)):
                counts, _ = np.histogram(each, edges)
                ends = place + HISTOGRAM_WIDTH * counts / counts.max()
                beside = {"orientation": "horizontal", "baseline": place, "fill": True}
                axes.stairs(ends, edges, color=color, **beside)
            boxes = axes.boxplot(
                values,
                positions=np.arange(len(groups)) - 0.15,
                widths=0.2,
                whis=WHISKERS_PERCENT,
                showfliers=False,
            )
            for patch in boxes["boxes"]:
                patch.set_facecolor("white")
            axes.set_ylabel(METRIC_NAMES[metric] if column == 0 else "")
        labels = [f"{name} (n = {len(rows)})" for name, rows, _ in groups]
        axes.set_xticks(range(len(groups)), labels, rotation=90)
        panels[0, column].set_title(title)
    low, high = WHISKERS_PERCENT
    figure.legend(
        handles=[boxes["medians"][0], boxes["means"][0]],
        labels=["median", "mean"],
        title=f"histogram: how many have this value; box: quartiles; whiskers: {low} % to {high} %",
        loc="outside upper center",
        ncols=2,
    )
    return figure


def worst_and_median(slices: pd.DataFrame) -> dict[str, str]:
    """Return the volumes with the lowest mean Dice and those around the median, with titles.

    slices: columns `image` and `dice`.
    """
    means = slices.groupby("image")["dice"].mean().dropna().sort_values(kind="stable")
    first = (len(means) - MEDIAN_VOLUMES) // 2
    chosen = {
        "worst": means.index[:WORST_VOLUMES],
        "median": means.index[first : first + MEDIAN_VOLUMES],
    }
    return {
        image: f"{rank}: {short_name(image)}" for rank, images in chosen.items() for image in images
    }


def draw_density(slices: pd.DataFrame, x: str, y: str) -> Figure:
    """Draw how many slices have the values x and y, as an image on a logarithmic scale."""
    figure = Figure(figsize=(5, 4.5))
    axes = figure.subplots()
    style = {"bins": 100, "norm": LogNorm(), "cmap": "viridis_r", "rasterized": True}
    *_, image = axes.hist2d(slices[x], slices[y], **style)
    # The ticks of a logarithmic scale are formulas otherwise.
    ticks = LogLocator(subs=(1, 2, 5))
    scale = figure.colorbar(image, label="slices", ticks=ticks, format="{x:g}")
    scale.ax.yaxis.set_minor_formatter(NullFormatter())
    return figure
