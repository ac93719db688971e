"""The style of all figures: as wide as a page, in colours for colour-blind readers."""

# Used for drawing and for saving, because matplotlib makes some texts only when it saves.
STYLE = {
    "font.size": 8,
    "axes.titlesize": "medium",
    "figure.labelsize": "medium",
    "figure.constrained_layout.use": True,
    "axes.grid": True,
    "axes.axisbelow": True,
    # Nearly equal values have ticks such as 0.90001, not 1e-5 and "+ 0.9" in a corner.
    "axes.formatter.useoffset": False,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "lines.linewidth": 0.8,
    "lines.markersize": 3.5,
    "lines.markeredgewidth": 0.7,
    "errorbar.capsize": 3,
    # A name may have dollars, which are no formula.
    "text.parse_math": False,
    "boxplot.patchartist": True,
    "boxplot.showmeans": True,
    "boxplot.medianprops.color": "black",
    "boxplot.meanprops.marker": "D",
    "boxplot.meanprops.markersize": 3.5,
    "boxplot.meanprops.markerfacecolor": "white",
    "boxplot.meanprops.markeredgecolor": "black",
    "boxplot.flierprops.marker": ".",
    "boxplot.flierprops.markersize": 2,
    "savefig.dpi": 300,
    # Text stays text, so that it can be searched and changed.
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
    # Makes the identifiers in an SVG the same in every run.
    "svg.hashsalt": "sam_lungs",
}
PAGE_WIDTH_INCHES = 7

# A colour of Okabe and Ito's palette and a marker for each subset, in alphabetical order.
SUBSET_STYLES = (("#0072B2", "o"), ("#E69F00", "^"), ("#009E73", "s"), ("#CC79A7", "D"))
METRIC_NAMES = {"jaccard": "Jaccard index", "dice": "Dice score"}
ALL_COLOR = "#BBBBBB"
NO_LUNG_COLOR = "#E5E5E5"
# Longer names of volumes would overlap.
NAME_LENGTH = 24


def short_name(image: str) -> str:
    """Return the name of a volume without `image_`, and without the middle of a long name."""
    name = image.removeprefix("image_")
    if len(name) <= NAME_LENGTH:
        return name
    half = NAME_LENGTH // 2
    return f"{name[: half - 1]}…{name[-half:]}"
