"""Results folder -> figures, and a report: one HTML page without other files."""

import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pandas as pd

from sam_lungs.study.layout import DEBUG_FOLDER, FIGURES_FOLDER, REPORT_NAME, picture_name
from sam_lungs.study.results import write_csv
from sam_lungs.study.run_record import RunRecord
from sam_lungs.summary import compare, figures
from sam_lungs.summary.agreement import agreement, slice_means
from sam_lungs.summary.effort import effort_of, rivals
from sam_lungs.summary.embedded import Picture, embed_animation, embed_thumbnail, save_picture
from sam_lungs.summary.explored_report import explored_of_results
from sam_lungs.summary.join import (
    JoinedResults,
    join_results,
    print_means,
    warn_of_unknown_patients,
    write_tables,
)
from sam_lungs.summary.models import models_table
from sam_lungs.summary.overlays import draw_extremes, read_processed, save_animation
from sam_lungs.summary.patients import Patients
from sam_lungs.summary.published import published_slices
from sam_lungs.summary.published_xrays import compare_with_published_xrays
from sam_lungs.summary.ranking import RANKING_NAME, rank_runs
from sam_lungs.summary.references import check_comparable, different_inputs
from sam_lungs.summary.report_tables import (
    by_value,
    comparison_table,
    headline,
    interval_names,
    readable,
    settings_tables,
    table_of,
    volumes_table,
    worst_and_median,
)
from sam_lungs.summary.report_text import heading, listed, patients_of, prompting, training
from sam_lungs.summary.settings import how_it_was_made, settings_of_runs
from sam_lungs.summary.statistics import FEWEST_CASES
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import atomic_write, remove, sha256_of

TEMPLATE = Path(__file__).with_name("report.html")
GALLERY_SLICES = 12
THUMBNAIL_PIXELS = 600
INTERVAL = f"its 95 % interval from {FEWEST_CASES} patients on"
# Of figures.SUBSET_STYLES.
COLOR_NAMES = ("blue", "orange", "green", "pink")


def report_runs(
    results_folder: Path,
    runs: dict[str, JoinedResults],
    published_folder: Path | None = None,
    patients: Patients | None = None,
) -> Path:
    """Write `report.html` into a results folder, and its figures into `figures/`.

    runs: by name, as `compare.read_runs` returns them; that of the results folder first. Of several
        `comparison.csv` is written too.
    published_folder: the authors' results; without it those that come with the code.
    patients: of explorations, see `join_results`.

    Returns the path of the report. Raises `InputError` as `join_results` and `compare.compare_runs`
    do, and when a file cannot be written.
    """
    warn_of_unknown_patients(runs.values())
    run_name, study = next(iter(runs.items()))
    slices = study.slices.merge(study.volumes[["image", "subset"]], on="image")
    figures_folder = results_folder / FIGURES_FOLDER
    made = how_it_was_made(study.records)
    page = {
        **made,
        **settings_tables(made["settings"]),
        "models": [row.dropna().to_dict() for _, row in models_table(runs).iterrows()],
        "mixed": {
            name: run.intervals["mixed"][0]
            for name, run in runs.items()
            if "mixed" in run.intervals
        },
        "different_inputs": different_inputs(runs),
        "run_settings": by_value(
            settings_of_runs({name: run.records for name, run in runs.items()})
        ),
        **heading(results_folder, study.records.values()),
        "run_name": run_name,
        **prompting(study.records),
        "training": training(run.records for run in runs.values()),
        "headline": headline(study.intervals),
        "patients": patients_of(study),
        "interval_names": interval_names(study.intervals),
        "number_of_volumes": len(study.volumes),
        "volumes": volumes_table(study.volumes),
        "number_of_empty": len(study.empty_slices),
        "empty_slices": _empty_slices(study.empty_slices),
        "left_out": study.left_out,
        "figures": _draw_study(slices, figures_folder),
        "gallery": _gallery(study.slices, results_folder),
        "overlays": _overlays(study.volumes, results_folder, figures_folder),
        **_compare_with_published(slices, published_folder, figures_folder),
        "xrays": compare_with_published_xrays(slices),
        **_compare_runs(runs, results_folder, figures_folder),
        "explored": explored_of_results(results_folder, patients),
    }
    template = jinja2.Template(
        TEMPLATE.read_text("utf-8"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    path = results_folder / REPORT_NAME
    with atomic_write(path) as temporary:
        temporary.write_text(
            template.render(page, readable=readable, table_of=table_of, listed=listed), "utf-8"
        )
    return path


def report_study(results_folders: Sequence[Path]) -> None:
    """Join the results in each folder and print them; write the report of the first folder.

    results_folders: of one study, such as one per prompt protocol; the report compares them.

    Raises `InputError` as `compare.read_runs` and `report_runs` do; the tables stay.
    """
    runs = {}
    for name, folder in zip(compare.run_names(results_folders), results_folders, strict=True):
        runs[name] = join_results(folder)
        write_tables(runs[name], folder)
        print_means(runs[name])
    check_comparable(runs)
    print(report_runs(results_folders[0], runs))


def _draw_study(slices: pd.DataFrame, folder: Path) -> list[Picture]:
    colors = _colors(slices["subset"])
    are_many = slices["image"].nunique() > figures.MANY_VOLUMES
    of_volumes = "the worst and the median volumes" if are_many else "each volume"
    drawn = {
        "boxes": (
            f"Jaccard index and Dice score of slices with lung.{colors}",
            figures.draw_box_plots,
        ),
        "along": (
            f"Dice score along the slices of {of_volumes}; grey: no lung.{colors}",
            figures.draw_along_slices,
        ),
        "predicted_iou": (
            # Of many volumes the density is drawn, of all subsets.
            f"Dice score and predicted IoU of slices with lung.{'' if are_many else colors}",
            figures.draw_predicted_iou,
        ),
    }
    return [
        save_picture(figure, folder, name, caption)
        for name, (caption, draw) in drawn.items()
        if (figure := draw(slices))
    ]


def _colors(subsets: pd.Series) -> str:
    """Return a sentence with the colour of each subset, empty for one subset."""
    names = sorted(figures.named_subsets(subsets).unique())
    if not 1 < len(names) <= len(COLOR_NAMES):
        return ""
    pairs = zip(COLOR_NAMES, names, strict=False)
    return f" Subsets: {', '.join(f'{name} {color}' for color, name in pairs)}."


def _compare_with_published(
    slices: pd.DataFrame, published_folder: Path | None, folder: Path
) -> dict:
    published = join_results(published_folder).slices if published_folder else published_slices()
    table = compare.compare_with_published(slices, published)
    pictures = []
    if len(pairs := compare.pair_slices(published, slices)):
        caption = "Dice score of each slice, published and reproduced."
        pairs = pairs.merge(slices[["image", "slice", "subset"]])
        pictures = [save_picture(figures.draw_published(pairs), folder, "published", caption)]
    of_all = len(table) == len(compare.published_volumes())
    return {
        "verdict": compare.verdict(table),
        "published": table,
        "agreement": agreement(table) if len(table) else table,
        "slice_means": slice_means(table) if of_all else table.head(0),
        "published_figures": pictures,
    }


def _compare_runs(runs: dict[str, JoinedResults], results_folder: Path, folder: Path) -> dict:
    """Compare all runs in `comparison.csv`, and return how the others differ from the first.

    More than two runs are ranked in `ranking.csv`.
    """
    remove(results_folder / RANKING_NAME)
    if len(runs) == 1:
        return {"comparison": None, "comparison_figures": [], "ranking": None, "rivals": []}
    table = compare.compare_runs(runs)
    write_csv(table, results_folder / compare.COMPARISON_NAME)
    ranking = None
    if len(runs) > 2:
        ranking = rank_runs(runs)
        write_csv(ranking, results_folder / RANKING_NAME)
    figure = figures.draw_prompt_effects({name: run.intervals for name, run in runs.items()})
    caption = f"Mean Dice score over patients of each run, with {INTERVAL}."
    pictures = [save_picture(figure, folder, "prompts", caption)]
    effort = effort_of(runs)
    if effort["interactions"].nunique() > 1:
        caption = (
            f"Mean Dice score over patients, with {INTERVAL}, and the interactions per volume that"
            " it takes: points, and 2 for each box."
        )
        pictures.append(save_picture(figures.draw_effort(effort), folder, "effort", caption))
    with_first = table[table["first"] == next(iter(runs))]
    return {
        "comparison": comparison_table(with_first),
        "comparison_figures": pictures,
        "ranking": ranking,
        "rivals": rivals(runs, with_first),
    }


def _empty_slices(empty_slices: pd.DataFrame) -> pd.DataFrame:
    """Return the table of slices without lung; of many volumes those with most false positives."""
    if empty_slices.empty:
        return empty_slices
    return worst_and_median(empty_slices, -empty_slices["pixels_avg"])


def _gallery(slices: pd.DataFrame, results_folder: Path) -> list[Picture]:
    """Return the pictures of the worst slices, as far as `--debug` drew them in the same run."""
    pictures = []
    worst = slices.dropna(subset=["dice"]).nsmallest(GALLERY_SLICES, "dice")
    for row in worst.itertuples():
        name = f"{DEBUG_FOLDER}/{picture_name(row.slice)}"
        path = results_folder / row.image / name
        record = RunRecord.read(results_folder / row.image)
        if record and path.exists() and record.files.get(name) == sha256_of(path):
            caption = f"{row.image}, slice {row.slice}: Dice {row.dice:.4f}"
            pictures.append(embed_thumbnail(path, caption, results_folder, THUMBNAIL_PIXELS))
    return pictures


def _overlays(volumes: pd.DataFrame, results_folder: Path, folder: Path) -> list[Picture]:
    """Draw slices of the worst, the median and the best volume, and animate the median one."""
    images = volumes.sort_values("dice_avg")["image"].tolist()
    median = images[(len(images) - 1) // 2]
    # With fewer than three volumes, one volume has several of these ranks.
    ranks = {images[0]: "worst", images[-1]: "best", median: "median"}
    pictures = []
    for image in sorted(ranks, key=images.index):
        try:
            volume = read_processed(results_folder / image)
        except InputError as error:
            print(f"warning: {error}; {image} is not drawn", file=sys.stderr)
            continue
        if volume is None:
            continue
        rank = ranks[image]
        caption = f"{image}, the {rank} volume by its mean Dice score"
        pictures.append(save_picture(draw_extremes(volume), folder, f"slices_{rank}", caption))
        if image == median:
            path = folder / "through_volume.gif"
            save_animation(volume, path)
            caption = f"A slice of {image}; the animation goes through the volume"
            pictures.append(embed_animation(path, caption, results_folder))
    return pictures
