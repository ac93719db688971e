"""Figure 3 of the paper: box plots of the published slices, and of a study beside them.

python -m sam_lungs.summary.figure_3
"""

from dataclasses import dataclass
from pathlib import Path

import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from sam_lungs.study.metrics import METRICS
from sam_lungs.summary.figure_style import ALL_COLOR, METRIC_NAMES, PAGE_WIDTH_INCHES, STYLE
from sam_lungs.summary.figures import save_figure
from sam_lungs.summary.join import join_results
from sam_lungs.summary.published import published_slices
from sam_lungs.utils.cli import option, parse_options, run_script

BOXES = {"all": "", "coronacases": "coronacases_", "radiopaedia": "radiopaedia_"}


@dataclass(frozen=True)
class Options:
    """The options of this command."""

    results_folder_path: Path | None = option(
        "results folder of a study of the paper's volumes, to draw beside the published results",
        None,
        "input and output",
        "-r",
    )
    output_folder: Path = option(
        "where figure_3.svg, .png and .pdf are written",
        Path("working_data/paper/figure_3"),
        "input and output",
    )


@rc_context(STYLE)
def draw_figure_3(studies: dict[str, pd.DataFrame]) -> Figure:
    """Draw box plots over all slices with lung and over each half of the dataset, as the paper.

    Outliers are not drawn. studies: by title, columns `image`, `jaccard` and `dice`; names are with
    or without `image_`. A half without slices has no box.
    """
    figure = Figure(figsize=(PAGE_WIDTH_INCHES, 5))
    panels = figure.subplots(len(METRICS), len(studies), sharex="col", sharey=True, squeeze=False)
    for column, (title, slices) in enumerate(studies.items()):
        slices = slices[slices["dice"].notna()]
        names = slices["image"].str.removeprefix("image_")
        boxes = {label: slices[names.str.startswith(start)] for label, start in BOXES.items()}
        boxes = {label: rows for label, rows in boxes.items() if len(rows)}
        for axes, metric in zip(panels[:, column], METRICS, strict=True):
            drawn = axes.boxplot([rows[metric] for rows in boxes.values()], showfliers=False)
            for patch in drawn["boxes"]:
                patch.set_facecolor(ALL_COLOR)
            axes.set_ylabel(METRIC_NAMES[metric])
        labels = [f"{label}\nn = {len(rows)}" for label, rows in boxes.items()]
        axes.set_xticks(range(1, len(boxes) + 1), labels)
        panels[0, column].set_title(title)
    figure.legend(
        handles=[drawn["medians"][0], drawn["means"][0]],
        labels=["median", "mean"],
        title="box: quartiles; whiskers: at most 1.5 box lengths",
        loc="outside upper center",
        ncols=2,
    )
    return figure


def main() -> None:
    command = "python -m sam_lungs.summary.figure_3"
    options = parse_options(
        Options, "Draw figure 3 of the paper: box plots of its slices.", command, prog=command
    )
    studies = {"published": published_slices()}
    if options.results_folder_path:
        studies["here"] = join_results(options.results_folder_path).slices
    save_figure(draw_figure_3(studies), options.output_folder, "figure_3")
    print(options.output_folder / "figure_3.png")


if __name__ == "__main__":
    run_script(main)
