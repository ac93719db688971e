"""Explorations of prompts -> `explored.csv`, figures, and their section of the report."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sam_lungs.study.explore.layout import MAPS_FOLDER, exploration_folder, map_name
from sam_lungs.study.layout import FIGURES_FOLDER
from sam_lungs.study.results import write_csv
from sam_lungs.summary.embedded import Picture, embed_png, figure_files
from sam_lungs.summary.explored import (
    EXPLORED_NAME,
    KINDS,
    Explored,
    ExploredVolume,
    differences,
    explored_table,
    read_explorations,
)
from sam_lungs.summary.explored_figures import PANELS, draw_best, draw_curves, run_label
from sam_lungs.summary.figures import save_figure
from sam_lungs.summary.patients import Patients
from sam_lungs.summary.statistics import FEWEST_CASES

# Quantities that are in the figure and in explored.csv, but would make the table too long.
ONLY_DRAWN = re.compile(r"mean_dice_click_\d+")

INTERVAL = f"their 95 % intervals from {FEWEST_CASES} patients on"
# Columns of a table on a page.
WIDEST = 5


class Text(NamedTuple):
    """What the report says of a kind of exploration."""

    title: str
    shows: str
    shows_not: str


TEXTS = {
    "map": Text(
        "Where one clicks",
        "A positive click at each position of a grid, alone or with the other prompts of the"
        " protocol. share_dice_0.8: share of an object's area where a click gives a Dice score of"
        " at least 0.8. random_click: a click anywhere in the object, its mean and its 5 % quantile"
        " in a slice. worst, best: of the positions in the object, in all slices of a volume.",
        "Where people click: all positions in the object count alike.",
    ),
    "negative_map": Text(
        "Where the negative point lies",
        "The negative point at each position of a grid, with the other prompts of the protocol."
        " share_dice_0.8, random_click, worst, best: as above, of positions outside the object.",
        "Where people would place it: all positions outside the object count alike.",
    ),
    "jitter": Text(
        "Prompts that are not exact",
        "Points and box of the protocol, moved at random with the standard deviation sigma. Spread:"
        " the standard deviation of a slice's Dice score over the repeats, mean over slices.",
        "How far people miss. The prompts that are moved come from the reference masks.",
    ),
    "points": Text(
        "How many points",
        "Positive points of each object and as many negative ones, at random or spread evenly, with"
        " and without its box.",
        "What a user gets: points and boxes are taken from the reference masks.",
    ),
    "clicks": Text(
        "Click by click",
        "Each next click is in the middle of the largest wrong region. mean_clicks_to_0.85: over"
        " the slices in which the object reached this Dice score; never_0.85: how many did not.",
        "Clicks of a person: they are simulated from the reference masks, so each is in the largest"
        " error.",
    ),
    "best": Text(
        "How good prompts could be",
        "The best Dice score that a search found, beside that of the prompts it started from: a"
        " lower bound of what the best prompts give.",
        "What a user gets: the search knows the reference masks, so it is an oracle that no user"
        " has. A longer search may find better prompts.",
    ),
}


class Section(NamedTuple):
    """A kind of exploration in the report.

    header, rows: a table; its first two columns are the quantity and the object, the others a run
    each; of many runs, the run and its value. differences: see `explored.differences`.
    """

    text: Text
    header: list[str]
    rows: list[list[str]]
    differences: list[str]
    figures: list[Picture]
    heat_maps: list[Picture]


def summarize_explorations(
    study_folder: Path, patients: Patients | None = None, kinds: Sequence[str] = KINDS
) -> list[Path]:
    """Write `explored.csv` of each exploration of a study, draw the figures, and print the means.

    study_folder: holds `explore/`. patients, kinds: see `read_explorations`.

    Returns the paths of all files that were written. Raises `InputError` as `read_explorations`
    does, and when a file cannot be written.
    """
    explored = read_explorations(study_folder, patients, kinds)
    written = []
    for kind, tables in _tables(explored).items():
        written += _write(study_folder, kind, explored, tables)
        header, *rows = _rows(tables)
        print(f"\n{kind}")
        print(pd.DataFrame(rows, columns=header).to_string(index=False))
    return written


def explored_of_results(results_folder: Path, patients: Patients | None = None) -> dict:
    """Return the section of the report in a results folder, and write its tables and figures.

    Keys: `sections`, of the study that has these results; `left_out`, see `Explored`. Both are
    empty where nothing was explored.

    Raises `InputError` as `summarize_explorations` does.
    """
    page_folder = results_folder.absolute()
    # The results folder is that of the study, or <study>/<protocol>, or <study>/<model>/<protocol>.
    studies = (page_folder, *page_folder.parents[:2])
    study = next(
        (
            each
            for each in studies
            if any(exploration_folder(each, kind, protocol="").is_dir() for kind in KINDS)
        ),
        None,
    )
    if study is None:
        return {"sections": [], "left_out": []}
    explored = read_explorations(study, patients)
    sections = []
    for kind, tables in _tables(explored).items():
        volumes = explored.runs[kind]
        pngs = [path for path in _write(study, kind, explored, tables) if path.suffix == ".png"]
        caption = f"{TEXTS[kind].title}: means over patients, with {INTERVAL}."
        if kind == "best":
            caption = "The best Dice score found in each slice, over that of the start."
        figures = [embed_png(path, caption, page_folder) for path in pngs]
        header, *rows = _turned(_rows(tables))
        heat_maps = [
            picture for run in volumes for picture in _heat_maps(run, volumes[run], page_folder)
        ]
        sections.append(
            Section(TEXTS[kind], header, rows, differences(volumes), figures, heat_maps)
        )
    return {"sections": sections, "left_out": explored.left_out}


def _tables(explored: Explored) -> dict[str, dict[str, pd.DataFrame]]:
    """Return the table of each run of each kind."""
    return {
        kind: {name: explored_table(volumes) for name, volumes in runs.items()}
        for kind, runs in explored.runs.items()
    }


def _write(
    study_folder: Path, kind: str, explored: Explored, tables: dict[str, pd.DataFrame]
) -> list[Path]:
    """Write the tables and figures of a kind; return their paths."""
    written = []
    for name, table in tables.items():
        written.append(explored.runs[kind][name][0].folder.parent / EXPLORED_NAME)
        write_csv(table, written[-1])
    if kind in PANELS:
        figure = draw_curves(tables, PANELS[kind])
    elif kind == "best":
        figure = draw_best(tables, explored.runs[kind])
    else:  # maps have a table, and pictures of their own
        return written
    folder = exploration_folder(study_folder, kind, FIGURES_FOLDER)
    save_figure(figure, folder, kind)
    return [*written, *figure_files(folder, kind)]


def _rows(tables: dict[str, pd.DataFrame]) -> list[list[str]]:
    """Return the lines of a table for readers, the header first; its columns are the runs."""
    columns = {
        run_label(name, table): {
            (row["quantity"], row["object"]): _cell(row, table["patients"].max())
            for _, row in table.iterrows()
        }
        for name, table in tables.items()
    }
    keys = dict.fromkeys(key for column in columns.values() for key in column)
    lines = [
        [*key, *(column.get(key, "-") for column in columns.values())]
        for key in keys
        if not ONLY_DRAWN.fullmatch(key[0])
    ]
    return [["quantity", "object", *columns], *lines]


def _turned(table: list[list[str]]) -> list[list[str]]:
    """Return a table with a line for each run, if it has more runs than columns fit on a page."""
    header, *lines = table
    if len(header) <= WIDEST:
        return table
    turned = [
        [quantity, of, run, value]
        for quantity, of, *values in lines
        for run, value in zip(header[2:], values, strict=True)
        if value != "-"
    ]
    return [[*header[:2], "run", "value"], *turned]


def _cell(row: pd.Series, patients: int) -> str:
    """Return a value; patients: of the run, to say where a mean is over fewer."""
    if pd.notna(row["sum"]):
        return f"{row['sum']:g}"
    if pd.isna(row["mean"]):
        return "-"
    interval = "" if pd.isna(row["low"]) else f" ({row['low']:.4f} to {row['high']:.4f})"
    fewer = f", of {row['patients']} only" if row["patients"] < patients else ""
    return f"{row['mean']:.4f}{interval}{fewer}"


def _heat_maps(name: str, volumes: Sequence[ExploredVolume], page_folder: Path) -> list[Picture]:
    """Return the heat maps of the worst, the median and the best slice, by their mean Dice."""
    maps = pd.concat([each.slices.assign(folder=each.folder) for each in volumes])
    if (together := maps["object"] == "all").any():
        maps = maps[together]
    of_slices = maps.groupby(["folder", "slice"])["dice"].mean().sort_values(kind="stable")
    last = len(of_slices) - 1
    # With fewer than three slices, one has several of these ranks.
    ranks = {last // 2: "median", last: "best", 0: "worst"}
    pictures = []
    for number, rank in sorted(ranks.items()):
        (folder, index), dice = of_slices.index[number], of_slices.iloc[number]
        path = folder / MAPS_FOLDER / map_name(index)
        if path.exists():
            caption = (
                f"{name}, {folder.name}, slice {index}: the {rank} slice, mean Dice {dice:.4f} over"
                " all clicks of the grid"
            )
            pictures.append(embed_png(path, caption, page_folder))
    return pictures
