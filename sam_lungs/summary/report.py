"""Results folder -> figures, and a report: one HTML page without other files."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import jinja2
import pandas as pd
from markupsafe import Markup
from PIL import Image

from sam_lungs.study.layout import DEBUG_FOLDER, FIGURES_FOLDER, REPORT_NAME, picture_name
from sam_lungs.study.results import write_csv
from sam_lungs.study.run_record import RunRecord
from sam_lungs.summary import compare, figures
from sam_lungs.summary.agreement import agreement, slice_means
from sam_lungs.summary.effort import effort_of, rivals
from sam_lungs.summary.embedded import Picture, data_uri, save_picture
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
from sam_lungs.summary.references import different_inputs
from sam_lungs.summary.settings import how_it_was_made, settings_of_runs
from sam_lungs.summary.statistics import interval_name
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import atomic_write, remove

TEMPLATE = Path(__file__).with_name("report.html")
GALLERY_SLICES = 12
THUMBNAIL_PIXELS = 420


def write_report(
    results_folder: Path,
    compared: Sequence[Path] = (),
    published_folder: Path | None = None,
    patients: Patients | None = None,
    allow_mixed: bool = False,
) -> Path:
    """Write `report.html` into a results folder, and its figures as SVG and PNG into `figures/`.

    compared: results folders of other runs over the same slices, such as other prompt protocols;
        then `comparison.csv` is written too.
    published_folder: the authors' results; without it those that come with the code.
    patients: see `join_results`. allow_mixed: see `compare.read_runs`.

    Returns the path of the report. Raises `InputError` as `compare.read_runs` and
    `compare.compare_runs` do, and when a file cannot be written.
    """
    runs = compare.read_runs([results_folder, *compared], patients, allow_mixed)
    return report_runs(results_folder, runs, published_folder, patients)


def report_runs(
    results_folder: Path,
    runs: dict[str, JoinedResults],
    published_folder: Path | None = None,
    patients: Patients | None = None,
) -> Path:
    """Write the report of runs that are read, that of the results folder first.

    The rest is as in `write_report`.
    """
    warn_of_unknown_patients(runs.values())
    title, study = next(iter(runs.items()))
    slices = study.slices.merge(study.volumes[["image", "subset"]], on="image")
    figures_folder = results_folder / FIGURES_FOLDER
    page = {
        **how_it_was_made(study.records),
        "models": models_table(runs),
        "mixed": {
            name: run.intervals["mixed"][0]
            for name, run in runs.items()
            if "mixed" in run.intervals
        },
        "different_inputs": different_inputs(runs),
        "run_settings": settings_of_runs({name: run.records for name, run in runs.items()}),
        "title": title,
        "names": sorted({str(each.segmenter.get("model")) for each in study.records.values()}),
        **_prompting(study.records),
        "headline": _headline(study.intervals),
        "patients": _patients(study),
        "interval_names": _interval_names(study.intervals),
        "volumes": study.volumes,
        "empty_slices": study.empty_slices,
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
        TEMPLATE.read_text("utf-8"), autoescape=True, undefined=jinja2.StrictUndefined
    )
    path = results_folder / REPORT_NAME
    with atomic_write(path) as temporary:
        temporary.write_text(template.render(page, table=_to_html), "utf-8")
    return path


def report_study(results_folders: Sequence[Path]) -> None:
    """Join the results in each folder and print them; write the report of the first folder.

    results_folders: of one study, such as one per prompt protocol; the report compares them.

    Raises `InputError` as `join_results` and `write_report` do.
    """
    for folder in results_folders:
        joined = join_results(folder)
        write_tables(joined, folder)
        print_means(joined)
    print(write_report(results_folders[0], results_folders[1:]))


def _prompting(records: dict[str, RunRecord]) -> dict:
    """Return where the prompts come from; without records, from the reference masks."""
    protocols = [each.protocol for each in records.values()]
    files = {each["prompts_file"] for each in protocols if "prompts_file" in each}
    are_prompted = any(protocols) or not protocols
    return {
        "are_prompted": are_prompted,
        "prompts_files": sorted(files),
        "is_of_reference": are_prompted and not files,
    }


def _patients(study: JoinedResults) -> str:
    """Return how many patients there are, and how that is known."""
    text = f"Patients: {len(study.cases)}, volumes: {len(study.volumes)}; the patients come from"
    text += f" {study.patients_from}"
    if unknown := study.volumes["patient"].isna().sum():
        text += f"; volumes without a known patient, each counted as one: {unknown}"
    return f"{text}."


def _headline(intervals: pd.DataFrame) -> pd.DataFrame:
    """Return the table of intervals for readers; the mean over patients comes first."""

    def with_interval(row: pd.Series, name: str) -> str:
        mean, low, high = (row[f"{name}_{part}"] for part in ("avg", "low", "high"))
        return f"{mean:.4f}" + ("" if pd.isna(low) else f" ({low:.4f} to {high:.4f})")

    return pd.DataFrame(
        {
            "subset": intervals["subset"],
            "metric": intervals["metric"],
            "mean over patients": intervals.apply(with_interval, axis=1, name="case"),
            "mean over volumes": intervals.apply(with_interval, axis=1, name="volume"),
            "patients": intervals["cases"],
            "volumes": intervals["volumes"],
            "slices": intervals["slices"],
            "interactions": intervals["interactions"],
            "training data": intervals["exposure"],
        }
    )


def _interval_names(intervals: pd.DataFrame) -> dict[str, str]:
    """Return the name of the interval of each subset."""
    return dict(intervals.groupby("subset", sort=False)["cases"].max().map(interval_name))


def _draw_study(slices: pd.DataFrame, folder: Path) -> list[Picture]:
    drawn = {
        "boxes": ("Jaccard index and Dice score of slices with lung.", figures.draw_box_plots),
        "along": ("Dice score along the slices of each volume.", figures.draw_along_slices),
        "predicted_iou": ("Dice score and the model's predicted IoU.", figures.draw_predicted_iou),
    }
    return [
        save_picture(figure, folder, name, caption)
        for name, (caption, draw) in drawn.items()
        if (figure := draw(slices))
    ]


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
    caption = "Mean Dice score over patients of each run, with its 95 % interval."
    pictures = [save_picture(figure, folder, "prompts", caption)]
    effort = effort_of(runs)
    if effort["interactions"].nunique() > 1:
        caption = (
            "Mean Dice score over patients, with its 95 % interval, and the interactions per volume"
            " that it takes: points, and 2 for each box."
        )
        pictures.append(save_picture(figures.draw_effort(effort), folder, "effort", caption))
    with_first = table[table["first"] == next(iter(runs))]
    return {
        "comparison": with_first,
        "comparison_figures": pictures,
        "ranking": ranking,
        "rivals": rivals(runs, with_first),
    }


def _gallery(slices: pd.DataFrame, results_folder: Path) -> list[Picture]:
    """Return the pictures of the worst slices, as far as `--debug` drew them."""
    pictures = []
    for row in slices.dropna(subset=["dice"]).nsmallest(GALLERY_SLICES, "dice").itertuples():
        link = Path(row.image, DEBUG_FOLDER, picture_name(row.slice))
        if (results_folder / link).exists():
            with Image.open(results_folder / link) as picture:
                thumbnail = picture.convert("RGB")
            thumbnail.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
            buffer = io.BytesIO()
            thumbnail.save(buffer, "JPEG", quality=85)
            caption = f"{row.image}, slice {row.slice}: Dice {row.dice:.4f}"
            pictures.append(Picture(data_uri("jpeg", buffer.getvalue()), caption, link.as_posix()))
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
            uri = data_uri("gif", path.read_bytes())
            link = f"{FIGURES_FOLDER}/{path.name}"
            pictures.append(Picture(uri, f"All slices of {image}", link))
    return pictures


def _to_html(table: pd.DataFrame) -> str:
    shown = table.rename(columns=lambda name: str(name).replace("_", " "))
    # `na_rep` has no effect on integers.
    integers = shown.select_dtypes("Int64")
    shown = shown.assign(**integers.astype(object).where(integers.notna(), "-"))
    html = shown.to_html(index=False, border=0, na_rep="-", float_format="{:.4f}".format)
    return Markup(html)
