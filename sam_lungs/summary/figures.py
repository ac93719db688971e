"""Figures of a whole study, for print: as wide as a page, in colours the colour-blind tell apart.

Dice score and Jaccard index have no unit; slices without lung have neither (NaN).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from scipy import stats

from sam_lungs.prompts.rules import PROTOCOLS, PromptProtocol
from sam_lungs.study.results import METRICS
from sam_lungs.summary.statistics import CONFIDENCE, subset_of
from sam_lungs.utils.files import replacing

# For drawing and for saving: matplotlib makes some texts only then. The salt makes SVG's names
# those of every other run.
STYLE = {"font.size": 8, "axes.titlesize": "medium", "svg.hashsalt": "sam_lungs"}
PAGE_WIDTH_INCHES = 7
PNG_DPI = 150

# Okabe and Ito's palette, and a marker for each, in the order that subsets come.
SUBSET_STYLES = (("#0072B2", "o"), ("#E69F00", "^"), ("#009E73", "s"), ("#CC79A7", "D"))
GREY = "#BBBBBB"
METRIC_NAMES = {"jaccard": "Jaccard index", "dice": "Dice score"}
MEAN_STYLE = {
    "marker": "D",
    "markersize": 3.5,
    "markerfacecolor": "white",
    "markeredgecolor": "black",
    "markeredgewidth": 0.7,
}


@rc_context(STYLE)
def draw_box_plots(slices: pd.DataFrame) -> Figure:
    """Draw the spread of both metrics over the slices with lung: of all slices, of each subset
    where there are more than one, and of each volume; under each, the number n of slices.

    slices: columns `image`, `jaccard`, `dice`.
    """
    of_lung = slices[slices["dice"].notna()]
    styles = _subset_styles(slices["image"])
    groups = [("all", of_lung, GREY)]
    if len(styles) > 1:
        subsets = of_lung["image"].map(subset_of)
        groups += [(name, of_lung[subsets == name], color) for name, (color, _) in styles.items()]
    volumes_from = len(groups)
    for image in slices["image"].unique():
        color, _ = styles[subset_of(image)]
        groups.append((_short(image), of_lung[of_lung["image"] == image], color))
    # A gap parts the volumes from what they are taken together in.
    places = [index + 0.5 * (index >= volumes_from) for index in range(len(groups))]

    figure = Figure(figsize=(PAGE_WIDTH_INCHES, 7.5), layout="constrained")
    for axes, metric in zip(figure.subplots(2, 1, sharex=True), METRICS, strict=True):
        boxes = axes.boxplot(
            [rows[metric] for _, rows, _ in groups],
            positions=places,
            widths=min(0.65, len(groups) / 12),
            patch_artist=True,
            showmeans=True,
            medianprops={"color": "black"},
            meanprops=MEAN_STYLE,
            flierprops={"marker": ".", "markersize": 2, "markeredgecolor": "#555555"},
        )
        for box, (_, _, color) in zip(boxes["boxes"], groups, strict=True):
            box.set_facecolor(color)
        axes.set_ylabel(METRIC_NAMES[metric])
        axes.grid(axis="y", alpha=0.3)
    axes.set_xticks(places, [f"{name} (n = {len(rows)})" for name, rows, _ in groups], rotation=90)
    figure.legend(
        handles=[
            Line2D([], [], color="black", label="median"),
            Line2D([], [], linestyle="", label="mean", **MEAN_STYLE),
        ],
        title="box: quartiles; whiskers: to 1.5 times its length; dots: slices beyond",
        loc="outside upper center",
        ncols=2,
        frameon=False,
    )
    return figure


@rc_context(STYLE)
def draw_along_slices(slices: pd.DataFrame) -> Figure:
    """Draw Dice along the slices of each volume, a panel each; no lung is a grey gap.

    slices: columns `image`, `slice`, `dice`.
    """
    images, styles = slices["image"].unique(), _subset_styles(slices["image"])
    columns = min(len(images), 4)
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(PAGE_WIDTH_INCHES, max(2.5, 1.35 * rows + 0.3)), layout="constrained")
    panels = figure.subplots(rows, columns, sharey=True, squeeze=False).flat
    # The volumes first: `zip` takes one more of the first than it has use for.
    for image, axes in zip(images, panels, strict=False):
        volume = slices[slices["image"] == image].sort_values("slice")
        edges = np.append(volume["slice"], volume["slice"].iloc[-1] + 1) - 0.5
        axes.stairs(
            volume["dice"].isna(),
            edges,
            fill=True,
            color="#E5E5E5",
            transform=axes.get_xaxis_transform(),
        )
        color, _ = styles[subset_of(image)]
        # Markers too: a line alone does not show a slice between two gaps.
        axes.plot(
            volume["slice"], volume["dice"], color=color, linewidth=0.8, marker=".", markersize=2
        )
        axes.set_xlim(edges[0], edges[-1])
        axes.set_title(_short(image))
        axes.grid(axis="y", alpha=0.3)
    for axes in panels:
        axes.set_axis_off()
    figure.supxlabel("slice number (grey: no lung)", fontsize="medium")
    figure.supylabel(METRIC_NAMES["dice"], fontsize="medium")
    return figure


@rc_context(STYLE)
def draw_scores(slices: pd.DataFrame) -> Figure | None:
    """Draw Dice of the slices with lung against SAM's own score; `None` where there is no score.

    slices: columns `image`, `dice` and perhaps `score`, the Jaccard index that SAM expected.
    """
    if "score" not in slices:
        return None
    scored = slices.dropna(subset=["score", "dice"])
    if scored.empty:
        return None
    figure = Figure(figsize=(5, 4.2), layout="constrained")
    axes = figure.subplots()
    _scatter(axes, scored, "score", "dice")
    expected = np.linspace(scored["score"].min(), scored["score"].max(), 100)
    axes.plot(
        expected,
        2 * expected / (1 + expected),
        color="black",
        linewidth=0.8,
        linestyle="--",
        label="were the score right",
    )
    axes.set_xlabel("score that SAM gave itself: the Jaccard index it expected")
    axes.set_ylabel("true Dice score")
    # A rank correlation needs ranks: scipy warns of values that are all the same.
    if scored[["score", "dice"]].nunique().min() > 1:
        correlation = stats.spearmanr(scored["score"], scored["dice"]).statistic
        axes.set_title(f"Spearman's correlation {correlation:.2f} over {len(scored)} slices")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


@rc_context(STYLE)
def draw_published(pairs: pd.DataFrame) -> Figure:
    """Draw the reproduced Dice of slices against the published one, and where they are equal.

    pairs: columns `image`, `slice`, `dice_published`, `dice_reproduced`.
    """
    known = pairs.dropna(subset=["dice_published", "dice_reproduced"])
    figure = Figure(figsize=(4.5, 4.5), layout="constrained")
    axes = figure.subplots()
    axes.axline((1, 1), slope=1, color="black", linewidth=0.8, linestyle="--", label="equal")
    _scatter(axes, known, "dice_published", "dice_reproduced")
    axes.set_aspect("equal")
    axes.set_xlabel("published Dice score")
    axes.set_ylabel("reproduced Dice score")
    axes.set_title(f"{len(known)} slices with lung")
    figure.legend(loc="outside lower center", ncols=3, frameon=False)
    return figure


@rc_context(STYLE)
def draw_prompt_effects(intervals: dict[str, pd.DataFrame]) -> Figure:
    """Draw the mean Dice of each prompt protocol with its interval; beside it, where at least two
    differ from the paper's only in how far the negative point moves, Dice along that way.

    intervals: by protocol, columns as `statistics.estimate` returns them; its bootstrap intervals
        over all volumes are drawn. An interval that is NaN leaves the point alone.
    """
    overall = pd.DataFrame(
        {
            name: table[(table["subset"] == "all") & (table["metric"] == "dice")].iloc[0]
            for name, table in intervals.items()
        }
    ).T
    offsets = {
        name: PROTOCOLS[name].negative_offset_rows
        for name in intervals
        if name in PROTOCOLS and _only_moves(PROTOCOLS[name])
    }
    panels = 1 + (len(offsets) > 1)
    figure = Figure(
        figsize=(PAGE_WIDTH_INCHES, max(2.6, 0.8 + 0.25 * len(intervals))), layout="constrained"
    )
    by_name, *by_offset = figure.subplots(1, panels, squeeze=False).flat
    by_name.errorbar(
        overall["volume_avg"],
        range(len(overall)),
        xerr=_whiskers(overall),
        linestyle="",
        marker="o",
        capsize=3,
        color=SUBSET_STYLES[0][0],
    )
    by_name.set_yticks(range(len(overall)), overall.index)
    by_name.invert_yaxis()
    by_name.set_ylabel("prompt protocol")
    average = f"mean {METRIC_NAMES['dice']} of volumes"
    by_name.set_xlabel(f"{average}, {CONFIDENCE:.0%} interval")
    by_name.grid(axis="x", alpha=0.3)
    for axes in by_offset:
        order = sorted(offsets, key=offsets.get)
        axes.errorbar(
            [offsets[name] for name in order],
            overall.loc[order, "volume_avg"],
            yerr=_whiskers(overall.loc[order]),
            marker="o",
            capsize=3,
            color=SUBSET_STYLES[0][0],
        )
        axes.set_xlabel("negative point moved down (pixels)")
        axes.set_ylabel(average)
        axes.grid(axis="y", alpha=0.3)
    return figure


def save_figure(figure: Figure, folder: Path, name: str) -> None:
    """Write a figure as `name.svg` and `name.png`, the same bytes for the same figure.

    Raises `InputError` when they cannot be written.
    """
    for suffix, options in {"svg": {"metadata": {"Date": None}}, "png": {"dpi": PNG_DPI}}.items():
        with rc_context(STYLE), replacing(folder / f"{name}.{suffix}") as temporary:
            figure.savefig(temporary, **options)


def _short(image: str) -> str:
    return image.removeprefix("image_")


def _subset_styles(images: pd.Series) -> dict[str, tuple[str, str]]:
    """Return a colour and a marker for each subset, starting over where there are too many."""
    subsets = sorted(images.map(subset_of).unique())
    return {
        subset: SUBSET_STYLES[index % len(SUBSET_STYLES)] for index, subset in enumerate(subsets)
    }


def _scatter(axes: Axes, slices: pd.DataFrame, x: str, y: str) -> None:
    """Draw a marker for each slice, in the colour and shape of its subset."""
    subsets = slices["image"].map(subset_of)
    for subset, (color, marker) in _subset_styles(slices["image"]).items():
        rows = slices[subsets == subset]
        axes.plot(
            rows[x],
            rows[y],
            linestyle="",
            marker=marker,
            markersize=3.5,
            markerfacecolor="none",
            markeredgecolor=color,
            markeredgewidth=0.7,
            label=subset,
        )
    axes.grid(alpha=0.3)


def _only_moves(protocol: PromptProtocol) -> bool:
    """Tell whether a protocol is the paper's but for how far the negative point moves."""
    return replace(protocol, negative_offset_rows=0) == PROTOCOLS["paper"]


def _whiskers(overall: pd.DataFrame) -> np.ndarray:
    """Return how far the interval reaches below and above the mean, (2, protocols) float64."""
    mean, low, high = (
        overall[name].astype("float64") for name in ("volume_avg", "volume_low", "volume_high")
    )
    return np.array([mean - low, high - mean])
