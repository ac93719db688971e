"""Figures of explorations of prompts: curves with intervals, a line for each model and protocol."""

from collections.abc import Sequence
from itertools import cycle
from typing import NamedTuple

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sam_lungs.summary.explored import ExploredVolume
from sam_lungs.summary.figure_style import PAGE_WIDTH_INCHES, STYLE, SUBSET_STYLES
from sam_lungs.summary.figures import MANY_VOLUMES

# The other colours of Okabe and Ito's palette that are readable on white. Together with the markers
# 42 runs have styles of their own.
COLORS = (*(color for color, _ in SUBSET_STYLES), "#D55E00", "#56B4E9", "#000000")
MARKERS = "o^sDvP"
# Runs are drawn beside each other, because their intervals overlap: by this share of the x axis.
BESIDE = 0.007
LEGEND_LINE_INCHES = 0.16
MEAN_DICE = "mean Dice score"
WITH_BOX, WITHOUT_BOX = "with box", "without box"


class Panel(NamedTuple):
    """A panel of curves.

    curves: for each line of a run, how it differs from the run's other lines -> the names of its
        quantities, a pattern whose group is the value on the x axis.
    """

    x: str
    y: str
    curves: dict[str, str]


class Style(NamedTuple):
    """How a run is drawn; place: 0 in the middle of all runs, in steps of 1."""

    run: str
    label: str
    color: str
    marker: str
    place: float


PANELS = {
    "jitter": (
        Panel(
            "sigma: standard deviation of the shifts (mm)",
            MEAN_DICE,
            {"": r"mean_dice_sigma_(.+)mm"},
        ),
        Panel(
            "sigma: standard deviation of the shifts (mm)",
            "spread of Dice within a slice",
            {"": r"spread_sigma_(.+)mm"},
        ),
    ),
    "points": (
        Panel(
            "positive points, sampled at random",
            MEAN_DICE,
            {
                WITH_BOX: r"mean_dice_(\d+)_points_box",
                WITHOUT_BOX: r"mean_dice_(\d+)_points",
            },
        ),
        Panel(
            "positive points, spread evenly",
            MEAN_DICE,
            {
                WITH_BOX: r"mean_dice_(\d+)_points_box_spread",
                WITHOUT_BOX: r"mean_dice_(\d+)_points_spread",
            },
        ),
    ),
    "clicks": (
        Panel("clicks", MEAN_DICE, {"": r"mean_dice_click_(\d+)"}),
        Panel("target Dice score", "share of slices that reached it", {"": r"share_reached_(.+)"}),
    ),
}


@rc_context(STYLE)
def draw_curves(tables: dict[str, pd.DataFrame], panels: Sequence[Panel]) -> Figure:
    """Draw means over patients and their intervals, a row of panels for each object.

    Panels without any curve are left out.

    tables: by run, as `explored.explored_table` returns them. Where an interval is NaN, only the
        mean is drawn.
    """
    objects = _objects(tables.values())
    quantities = pd.concat(tables.values())["quantity"]
    panels = [
        panel
        for panel in panels
        if any(quantities.str.fullmatch(pattern).any() for pattern in panel.curves.values())
    ]
    figure = Figure(figsize=(PAGE_WIDTH_INCHES, 2.4 * len(objects)))
    sharey = "all" if len({panel.y for panel in panels}) == 1 else "col"
    rows = figure.subplots(len(objects), len(panels), sharey=sharey, squeeze=False)
    for name, of_object in zip(objects, rows, strict=True):
        for panel, axes in zip(panels, of_object, strict=True):
            _draw_panel(axes, tables, name, panel)
            axes.set_title(_title(name, objects))
    _add_legend(figure)
    return figure


@rc_context(STYLE)
def draw_best(
    tables: dict[str, pd.DataFrame], volumes: dict[str, Sequence[ExploredVolume]]
) -> Figure:
    """Draw the best Dice found in each slice against that of the start; large: means over patients.

    tables: as for `draw_curves`. volumes: by run, with `start_dice` and `dice` of their slices.
    """
    objects = _objects(tables.values())
    columns = min(len(objects), 3)
    lines = -(-len(objects) // columns)
    side = min(4.2, PAGE_WIDTH_INCHES / columns)
    figure = Figure(figsize=(side * columns, side * lines))
    panels = figure.subplots(lines, columns, squeeze=False).ravel()
    for name, axes in zip(objects, panels, strict=False):
        for run, label, color, marker, _ in _styles(tables):
            slices = pd.concat([each.slices for each in volumes[run]])
            slices = slices[slices["object"] == name]
            style = {"color": color, "marker": marker, "linestyle": ""}
            axes.plot(
                slices["start_dice"],
                slices["dice"],
                markerfacecolor="none",
                label=label,
                rasterized=len(volumes[run]) > MANY_VOLUMES,
                **style,
            )
            table = tables[run][tables[run]["object"] == name]
            means = table.set_index("quantity")["mean"].reindex(["start_dice", "best_dice"])
            large = {"markersize": 8, "markeredgecolor": "black", "zorder": 3}
            axes.plot(*means.to_numpy()[:, np.newaxis], **style, **large)
        axes.axline((1, 1), slope=1, color="black", linestyle="--", label="equal")
        axes.set(
            aspect="equal",
            xlabel="Dice score at the start",
            ylabel="best Dice score found",
            title=_title(name, objects),
        )
    for axes in panels[len(objects) :]:
        axes.set_axis_off()
    _add_legend(figure, "small: a slice; large and filled: mean over patients")
    return figure


def _draw_panel(axes: Axes, tables: dict[str, pd.DataFrame], name: str, panel: Panel) -> None:
    curves = [
        (style, difference, curve)
        for style in _styles(tables)
        for difference, pattern in panel.curves.items()
        if len(curve := _curve(tables[style.run], name, pattern))
    ]
    ticks = np.unique([x for *_, curve in curves for x in curve["x"]])
    extent = np.ptp(ticks) if len(ticks) > 1 else 1
    for style, difference, curve in curves:
        reach = curve[["low", "high"]].sub(curve["mean"], axis=0).abs()
        is_open = difference == WITHOUT_BOX
        axes.errorbar(
            curve["x"] + BESIDE * extent * style.place,
            curve["mean"],
            yerr=reach.to_numpy().T,
            color=style.color,
            marker=style.marker,
            markerfacecolor="none" if is_open else style.color,
            linestyle="--" if is_open else "-",
            label=", ".join(filter(None, (style.label, difference))),
        )
    axes.set(xlabel=panel.x, ylabel=panel.y)
    # All of them, unless the numbers would overlap.
    if len(ticks) < 2 or np.diff(ticks).min() > 0.06 * extent:
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    else:
        axes.xaxis.set_major_locator(MaxNLocator("auto", integer=True))


def _curve(table: pd.DataFrame, name: str, pattern: str) -> pd.DataFrame:
    """Return the rows of an object whose quantity has the pattern, sorted by its number `x`."""
    numbers = table["quantity"].str.extract(f"^{pattern}$", expand=False).astype("float64")
    rows = table.assign(x=numbers)[numbers.notna() & (table["object"] == name)]
    return rows.sort_values("x")


def _styles(tables: dict[str, pd.DataFrame]) -> list[Style]:
    looks = zip(tables.items(), cycle(COLORS), cycle(MARKERS), strict=False)
    middle = (len(tables) - 1) / 2
    return [
        Style(run, run_label(run, table), color, marker, place - middle)
        for place, ((run, table), color, marker) in enumerate(looks)
    ]


def run_label(run: str, table: pd.DataFrame) -> str:
    """Return the name of a run with its number of patients."""
    patients = table["patients"].max()
    return f"{run} ({patients} patient{'' if patients == 1 else 's'})"


def _objects(tables: Sequence[pd.DataFrame]) -> list[str]:
    """Return the objects of all runs, `all` first."""
    names = pd.concat(tables)["object"].unique()
    return sorted(names, key=lambda name: (name != "all", len(name), name))


def _title(name: str, objects: Sequence[str]) -> str:
    if objects == ["all"]:
        return ""
    return "all objects" if name == "all" else f"object {name}"


def _add_legend(figure: Figure, title: str | None = None) -> None:
    """Add the legend of all panels below the figure, which grows; as many columns as fit."""
    handles = {}
    for axes in figure.axes:
        handles |= {
            label: handle for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
        }
    columns = int(16 * figure.get_figwidth() // (max(map(len, handles)) + 8))
    columns = min(max(columns, 1), len(handles))
    lines = -(-len(handles) // columns) + (title is not None)
    figure.set_figheight(figure.get_figheight() + 0.1 + LEGEND_LINE_INCHES * lines)
    place = {"loc": "outside lower center", "ncols": columns, "title": title}
    figure.legend(handles.values(), handles.keys(), **place)
