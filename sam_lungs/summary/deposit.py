"""Runs of a study -> tables to deposit, with a description of every column."""

import csv
import json
import re
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from sam_lungs.study.results import write_csv
from sam_lungs.study.run_record import RunRecord
from sam_lungs.summary.compare import COMPARISON_NAME
from sam_lungs.summary.join import TABLES, JoinedResults
from sam_lungs.summary.methods_wording import code
from sam_lungs.summary.methods_wording import table as markdown_table
from sam_lungs.utils.files import atomic_write, remove

COLUMNS = Path(__file__).with_name("columns.csv")
RUNS_NAME = "runs.csv"
README_NAME = "README.md"
STATISTICS = {
    "min": "lowest value of {} over the slices that have one",
    "max": "highest value of {} over the slices that have one",
    "avg": "mean of {}",
    "std": "sample standard deviation of {} over the slices that have a value",
    "slices": "number of slices that have a value of {}",
}
INTRODUCTION = """# Tables of the study

CSV files in UTF-8 with a header, commas and LF line ends. Numbers are not rounded. An empty field
means that there is no value. Slices count from 0. A slice with lung is one whose reference mask is
not empty; statistics are over these slices.
"""
ROWS = {
    "joint_raw_data.csv": "a slice",
    "joint_results.csv": "a volume",
    "joint_cases.csv": "a patient, with the means over volumes of the means over slices",
    "results.csv": "a metric, over all slices with lung",
    "intervals.csv": "a subset and metric",
    "joint_empty_slices.csv": "a volume whose slices without lung were segmented too",
    COMPARISON_NAME: "a pair of runs and metric",
    RUNS_NAME: "a volume, with its inputs and settings",
}


def write_deposit(
    folder: Path, runs: dict[str, JoinedResults], comparison: pd.DataFrame | None
) -> None:
    """Write the tables of all runs, `runs.csv` and a `README.md` that describes their columns.

    comparison: see `compare.compare_runs`; None for one run.

    Tables of `join.TABLES` begin with a column `run`. Raises `InputError` when a file cannot be
    written.
    """
    tables = {
        file_name: _stack({name: getattr(run, field) for name, run in runs.items()})
        for field, file_name in TABLES.items()
    }
    tables |= {
        COMPARISON_NAME: pd.DataFrame() if comparison is None else comparison,
        RUNS_NAME: _runs_table(runs),
    }
    readme = INTRODUCTION
    for name, content in tables.items():
        if content.empty:
            remove(folder / name)  # of an earlier call
            continue
        write_csv(content, folder / name)
        rows = [(code(column), *describe_column(name, column)) for column in content]
        readme += f"\n## {name}\n\nA row is {ROWS[name]}.\n\n"
        readme += markdown_table(("column", "unit", "meaning"), rows)
    with atomic_write(folder / README_NAME) as temporary:
        temporary.write_text(readme, "utf-8")


def describe_column(table_name: str, column: str) -> tuple[str, str]:
    """Return the unit and the meaning of a column; its unit is "" for text and names."""
    with open(COLUMNS, encoding="utf-8", newline="") as file:
        known = [row for row in csv.DictReader(file) if row["table"] in ("", table_name)]
    # Those of the table first.
    for row in sorted(known, key=lambda row: not row["table"]):
        if found := re.fullmatch(row["column"], column):
            return row["unit"], found.expand(row["meaning"])
    if found := re.fullmatch(f"(.+)_({'|'.join(STATISTICS)})", column):
        unit, _ = describe_column(table_name, found[1])
        return "count" if found[2] == "slices" else unit, STATISTICS[found[2]].format(found[1])
    return "", "see docs/results.md of sam-lungs"


def _stack(tables: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """Return tables in one, after a column with the name of the run."""
    filled = {name: each for name, each in tables.items() if len(each)}
    # With a missing value, an integer column would become one of floats.
    integers = {
        name: each.astype({column: "Int64" for column in each.select_dtypes("int64")})
        for name, each in filled.items()
    }
    if not integers:
        return pd.DataFrame()
    return pd.concat(integers, names=["run"]).reset_index("run").reset_index(drop=True)


def _runs_table(runs: dict[str, JoinedResults]) -> pd.DataFrame:
    rows = [
        {"run": name, "image": image} | _settings(run.records.get(image))
        for name, run in runs.items()
        for image in run.volumes["image"]
    ]
    table = pd.DataFrame(rows)
    # Of integers also where a volume has none.
    integers = {"numbers_version": "Int64"} if "numbers_version" in table else {}
    return table.astype(integers)


def _settings(record: RunRecord | None) -> dict:
    """Return the inputs and settings of a volume; nothing without a record."""
    if record is None:
        return {}
    low_hu, high_hu = record.window_hu or (None, None)
    return {
        "image_sha256": record.image.get("sha256"),
        "masks_sha256": _hashes(each.get("sha256") for each in record.masks),
        "model": record.segmenter.get("model"),
        "family": record.segmenter.get("family"),
        "weights_sha256": _hashes(record.segmenter.get("weights", {}).values()),
        "precision": record.options.get("precision"),
        "window_low_hu": low_hu,
        "window_high_hu": high_hu,
        "protocol": json.dumps(record.protocol),
        "numbers_version": record.numbers_version,
        "commit": record.environment.get("commit"),
        "seconds_per_slice": record.seconds_per_slice,
    }


def _hashes(hashes: Iterable[str | None]) -> str:
    return " ".join(each or "" for each in hashes)
