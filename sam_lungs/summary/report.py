"""A study's results on disk -> its figures, and one page to open, send and print."""

import base64
import io
import sys
from collections.abc import Sequence
from os.path import relpath
from pathlib import Path
from typing import NamedTuple

import jinja2
import pandas as pd
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from sam_lungs.study.results import RUN_NAME, read_run, write_csv
from sam_lungs.summary import compare as comparison
from sam_lungs.summary import figures as study_figures
from sam_lungs.summary.join import FIGURES_FOLDER, Study, join_results
from sam_lungs.summary.overlays import draw_extremes, read_processed, save_animation
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import replacing

GALLERY_SLICES = 12
THUMBNAIL_PIXELS = 420


class Picture(NamedTuple):
    """A picture in the page: its bytes, what it shows, and a file worth opening, if any."""

    data_uri: str
    caption: str
    link: str | None


def write_report(
    results_folder: Path, compared: Sequence[Path] = (), published_folder: Path | None = None
) -> Path:
    """Write `report.html` into a results folder, and its figures, as SVG and PNG, into `figures/`;

    with runs to compare, `comparison.csv` too.

    compared: results folders of other runs over the same slices, such as other prompt protocols.
    published_folder: the authors' results, slice by slice; without it their means of volumes that
        come with the code are what a study of the same volumes is held against.

    Returns the page's path. Raises `InputError` as `join_results` and `comparison.compare_runs` do,
    and when nothing can be written.
    """
    if compared:
        runs = comparison.read_runs([results_folder, *compared])
    else:
        runs = {results_folder.name: join_results(results_folder)}
    study = next(iter(runs.values()))
    figures_folder = results_folder / FIGURES_FOLDER
    # First what can be wrong, before anything is drawn.
    page = {
        **_how_it_was_made(study.volumes["image"], results_folder),
        "title": results_folder.resolve().name,
        "headline": _headline(study.intervals),
        "volumes": study.volumes,
        "empty_slices": study.empty_slices,
        "left_out": study.left_out,
        "figures": _draw_study(study, figures_folder),
        "gallery": _gallery(study.slices, results_folder),
        "overlays": _overlays(study.volumes, results_folder, figures_folder),
        **_hold_against_published(study, published_folder, figures_folder),
        **_compare(runs, results_folder, figures_folder),
    }
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["table"] = _to_html
    path = results_folder / "report.html"
    with replacing(path) as temporary:
        temporary.write_text(environment.get_template("report.html").render(page), "utf-8")
    return path


def _headline(intervals: pd.DataFrame) -> pd.DataFrame:
    """The table of intervals as a person reads it."""

    def with_interval(row, name):
        mean, low, high = (row[f"{name}_{part}"] for part in ("avg", "low", "high"))
        return f"{mean:.4f}" + ("" if pd.isna(low) else f" ({low:.4f} to {high:.4f})")

    return pd.DataFrame(
        {
            "volumes of": intervals["subset"],
            "metric": intervals["metric"],
            "mean over slices": intervals["slice_avg"].map("{:.4f}".format),
            "mean over volumes (95 %)": intervals.apply(with_interval, axis=1, name="volume"),
            "mean over patients (95 %)": intervals.apply(with_interval, axis=1, name="case"),
            "patients": intervals["cases"],
            "volumes": intervals["volumes"],
            "slices": intervals["slices"],
        }
    )


def _draw_study(study: Study, folder: Path) -> list[Picture]:
    drawn = {
        "boxes": ("Spread over the slices with lung.", study_figures.draw_box_plots(study.slices)),
        "along": (
            "Dice along the slices of each volume; grey where there is no lung.",
            study_figures.draw_along_slices(study.slices),
        ),
        "scores": (
            "What SAM expected of its masks, and what they were worth.",
            study_figures.draw_scores(study.slices),
        ),
    }
    return [
        _save(figure, folder, name, caption) for name, (caption, figure) in drawn.items() if figure
    ]


def _hold_against_published(study: Study, published_folder: Path | None, folder: Path) -> dict:
    slices = join_results(published_folder).slices if published_folder else None
    table = comparison.compare_with_published(study, slices)
    figures = []
    if slices is not None and len(pairs := comparison.pair_slices(slices, study.slices)):
        figure = study_figures.draw_published(pairs)
        figures = [_save(figure, folder, "published", "Dice of each slice, published and here.")]
    return {
        "verdict": comparison.verdict(table),
        "published": table,
        "published_figures": figures,
    }


def _compare(runs: dict[str, Study], results_folder: Path, folder: Path) -> dict:
    """Compare all runs, and show how the others differ from the first."""
    if len(runs) == 1:
        return {"comparison": None, "comparison_figures": []}
    table = comparison.compare_runs(runs)
    write_csv(table, results_folder / "comparison.csv")
    figure = study_figures.draw_prompt_effects({name: run.intervals for name, run in runs.items()})
    caption = "Mean Dice over volumes of each run, with its 95 % interval over patients."
    return {
        "comparison": table[table["first"] == next(iter(runs))],
        "comparison_figures": [_save(figure, folder, "prompts", caption)],
    }


def _gallery(slices: pd.DataFrame, results_folder: Path) -> list[Picture]:
    """The worst slices, as far as they were drawn when they were processed."""
    pictures = []
    for row in slices.dropna(subset=["dice"]).nsmallest(GALLERY_SLICES, "dice").itertuples():
        path = _debug_picture(results_folder, row.image, row.slice)
        if path:
            caption = f"{row.image}, slice {row.slice}: Dice {row.dice:.4f}"
            with Image.open(path) as picture:
                small = picture.convert("RGB")
            small.thumbnail((THUMBNAIL_PIXELS, THUMBNAIL_PIXELS))
            buffer = io.BytesIO()
            small.save(buffer, "JPEG", quality=85)
            link = Path(relpath(path, results_folder)).as_posix()
            pictures.append(Picture(_data_uri("jpeg", buffer.getvalue()), caption, link))
    return pictures


def _debug_picture(results_folder: Path, image: str, index: int) -> Path | None:
    """Where `Study` draws a slice: beside the results folder, or beside that of all protocols."""
    results_folder = results_folder.resolve()
    folders = (
        results_folder.parent / "debug",
        results_folder.parent.parent / "debug" / results_folder.name,
    )
    paths = [folder / image / f"slice_{index}_prediction.png" for folder in folders]
    return next((path for path in paths if path.exists()), None)


def _overlays(volumes: pd.DataFrame, results_folder: Path, folder: Path) -> list[Picture]:
    """Worst, median and best slices of the worst, median and best volume, and a way through one."""
    images = volumes.sort_values("dice_avg")["image"].tolist()
    middle = images[(len(images) - 1) // 2]
    # Of few volumes one is more than one of these.
    chosen = {images[0]: "worst", images[-1]: "best", middle: "median"}
    pictures = []
    for image in sorted(chosen, key=images.index):
        rank = chosen[image]
        try:
            volume = read_processed(results_folder / image)
            if volume is None:
                continue
            caption = f"{image}, the {rank} volume by its mean Dice"
            pictures.append(_save(draw_extremes(volume), folder, f"slices_{rank}", caption))
            if image == middle:
                path = folder / "through_volume.gif"
                save_animation(volume, path)
                uri = _data_uri("gif", path.read_bytes())
                pictures.append(Picture(uri, f"Through {image}", f"{FIGURES_FOLDER}/{path.name}"))
        except InputError as error:
            print(f"warning: {error}; {image} is not drawn", file=sys.stderr)
    return pictures


def _how_it_was_made(images: Sequence[str], results_folder: Path) -> dict:
    """Return what all volumes' runs have in common, and what they do not."""
    runs = {}
    for image in images:
        run = read_run(results_folder / image)
        if run is not None:
            try:
                runs[image] = _settings(run)
            except (KeyError, AttributeError, TypeError) as error:
                raise InputError(
                    f"{results_folder / image / RUN_NAME}: not the record of a run; process its"
                    " image again"
                ) from error
    tables = pd.DataFrame.from_dict(runs, orient="index")
    common = {name: column.iloc[0] for name, column in tables.items() if column.nunique() == 1}
    differing = tables.drop(columns=list(common))
    return {
        "common": common,
        "differing": differing.reset_index(names="image") if len(differing.columns) else None,
    }


def _settings(run: dict) -> dict[str, str]:
    return {
        "model": run["options"]["model"],
        "weights": run["checkpoint"]["sha256"],
        "precision of the encoder": run["precision"],
        "prompts": ", ".join(f"{name} {value}" for name, value in run["protocol"].items()),
        "window": run["options"]["window"],
        "device": run["device"],
        "threads": str(run["threads"]),
        "code": run["commit"] or "not a repository",
        "versions": ", ".join(f"{name} {version}" for name, version in run["versions"].items()),
    }


def _save(figure: Figure, folder: Path, name: str, caption: str) -> Picture:
    study_figures.save_figure(figure, folder, name)
    png = (folder / f"{name}.png").read_bytes()
    return Picture(_data_uri("png", png), caption, f"{FIGURES_FOLDER}/{name}.svg")


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _to_html(table: pd.DataFrame) -> str:
    shown = table.rename(columns=lambda name: str(name).replace("_", " "))
    html = shown.to_html(index=False, border=0, na_rep="-", float_format="{:.4f}".format)
    return Markup(html)
