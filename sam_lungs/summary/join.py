"""Results folders of volumes -> the tables of a study."""

import re
import sys
from collections.abc import Iterable
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sam_lungs.study import layout, results
from sam_lungs.study.explore.layout import EXPLORE_FOLDER
from sam_lungs.study.metrics import metrics_in, volume_metrics_in
from sam_lungs.study.run_record import RunRecord
from sam_lungs.summary.exposure import exposure_of_run
from sam_lungs.summary.mixing import check_alike
from sam_lungs.summary.patients import Patients
from sam_lungs.summary.statistics import estimate, interval_name, summarize_cases
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import atomic_write, check_name, remove

# The authors' files have the time of their run in their names: raw_data_2023-05-27_09-43-55.csv
PUBLISHED_NAME = re.compile(r"raw_data_[\d_-]+\.csv")

# Only these files of a volume are read, and verified.
READ = (layout.RAW_DATA_NAME, layout.SUMMARY_NAME, layout.EMPTY_SLICES_NAME)
NO_TABLE = f"has no {layout.RAW_DATA_NAME}"
NO_METRICS = "has no reference masks in the slices with prompts, so no metrics"
# Folders beside those of the volumes.
OTHER_FOLDERS = (layout.FIGURES_FOLDER, layout.METHODS_FOLDER, EXPLORE_FOLDER)

# The fields of JoinedResults that are written, and their files.
TABLES = {
    "slices": "joint_raw_data.csv",
    "volumes": "joint_results.csv",
    "cases": "joint_cases.csv",
    "summary": "results.csv",
    "intervals": "intervals.csv",
    "empty_slices": "joint_empty_slices.csv",
}


class JoinedResults(NamedTuple):
    """The tables of a study.

    slices, volumes, cases: a row per slice, per volume and per patient. summary: a row per metric,
    over all slices with lung, or over the volumes. intervals: see `statistics.estimate`.
    empty_slices: a row per volume whose slices without lung were segmented too; may be empty.
    left_out: for each folder that is not in the tables, a line that says why. patients_from: where
    patients and subsets come from.
    records: of the volumes that have one, by image; without `command`, and `files` are only READ.
    """

    slices: pd.DataFrame
    volumes: pd.DataFrame
    cases: pd.DataFrame
    summary: pd.DataFrame
    intervals: pd.DataFrame
    empty_slices: pd.DataFrame
    left_out: list[str]
    patients_from: str
    records: dict[str, RunRecord]


def join_results(
    folder: Path, patients: Patients | None = None, allow_mixed: bool = False
) -> JoinedResults:
    """Join the results of all volumes in a folder, ours or the authors' published ones.

    Folders without results, those of unfinished runs, volumes without reference masks in the slices
    with prompts, and those that `patients` does not have are left out with a warning.

    patients: patients and subsets; by default those in the volumes' run.json. allow_mixed: join
        volumes that were made in different ways too; then the means have a column `mixed`.

    Raises `InputError` when no volume is found, when a file cannot be read or was changed, and as
    `mixing.check_alike` does.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; process an image first")
    tables, rows, empty_slices, left_out, records = [], [], [], [], {}
    for volume_folder in sorted(path for path in folder.iterdir() if path.is_dir()):
        check_name(volume_folder)
        image = volume_folder.name
        record = _read_record(volume_folder)
        path = _find_table(volume_folder, record)
        if path == NO_TABLE and image in OTHER_FOLDERS:
            continue
        of = patients.find(image) if patients else _recorded(record)
        reason = path if isinstance(path, str) else None
        if not reason:
            table = results.read_raw_data(path)
            if of is None:
                reason = f"is not in {patients.source}"
            elif table["dice"].isna().all():
                reason = NO_METRICS
        if reason:
            left_out.append(f"{volume_folder}: {reason}; left out")
            print(f"warning: {left_out[-1]}", file=sys.stderr)
            continue
        table.insert(0, "image", image)
        tables.append(table)
        if record:
            records[image] = record
        of_volume = results.read_volume_metrics(volume_folder) if record else {}
        rows.append(
            _volume_row(table) | of_volume | dict(zip(("patient", "subset"), of, strict=True))
        )
        if (volume_folder / layout.EMPTY_SLICES_NAME).exists():
            empty_slices.append(_empty_row(volume_folder))
    if not tables and left_out and patients:
        raise InputError(
            f"{folder}: none of its volumes is in {patients.source}; it must have the names of the"
            " results folders"
        )
    if not tables:
        remedy = "see the warnings" if left_out else "process an image first"
        # Of --prompts or --model with several names.
        tables = sorted(folder.glob(f"*/*/**/{layout.RAW_DATA_NAME}"))
        if runs := dict.fromkeys(str(path.parents[1]) for path in tables):
            remedy = f"give one of its runs: -r {' or -r '.join(runs)}"
        raise InputError(f"{folder}: no folder has results; {remedy}")
    slices, volumes = pd.concat(tables, ignore_index=True), pd.DataFrame(rows)
    mixed = check_alike(folder, volumes["image"], records, allow_mixed)
    # Last, after the metrics that only some volumes have.
    volumes = volumes[[*volumes.columns.drop(["patient", "subset"]), "patient", "subset"]]
    return JoinedResults(
        slices,
        volumes,
        summarize_cases(volumes),
        _summarize(slices, volumes).assign(**mixed),
        estimate(volumes).assign(
            exposure=exposure_of_run(records, volumes["image"]).exposure, **mixed
        ),
        pd.DataFrame(empty_slices),
        left_out,
        patients.source if patients else "run.json",
        records,
    )


def warn_of_unknown_patients(runs: Iterable[JoinedResults]) -> None:
    """Print a line when there are volumes whose patient is not known."""
    known = pd.concat(run.volumes[["image", "patient"]] for run in runs)
    known = known.groupby("image")["patient"].count()
    if len(known) > 1 and (unknown := (known == 0).sum()):
        print(
            f"warning: the patients of {unknown} of {len(known)} volumes are not known, so each"
            " counts as a patient of its own; give --patients TABLE_OR_PATTERN or --dataset FILE to"
            " join_results.py, or --dataset FILE to process_image.py",
            file=sys.stderr,
        )


def print_means(joined: JoinedResults) -> None:
    """Print the summary over slices, and the means of volumes and patients."""
    print(joined.summary.to_string(index=False))
    cases = len(joined.cases)
    print(
        "\nMeans of patients (case) and of volumes, with bootstrap intervals over patients"
        f" ({interval_name(cases)}):"
    )
    print(joined.intervals.round(4).to_string(index=False))


def write_tables(joined: JoinedResults, output_folder: Path, parquet: bool = False) -> None:
    """Write the tables, see TABLES; an empty table is not written, and an older one removed.

    parquet: write each table as Parquet too, which large tables are read from in less time.

    Raises `InputError` when they cannot be written.
    """
    for name, file_name in TABLES.items():
        table, path = getattr(joined, name), output_folder / file_name
        if len(table):
            results.write_csv(table, path)
        else:
            remove(path)
        if len(table) and parquet:
            with atomic_write(path.with_suffix(".parquet")) as temporary:
                table.to_parquet(temporary, index=False)
        else:  # one of an earlier run would disagree with the CSV file
            remove(path.with_suffix(".parquet"))


def check_parquet() -> None:
    """Raise `InputError` when the package that writes Parquet is missing."""
    if find_spec("pyarrow") is None:
        raise InputError("--parquet: pyarrow is not installed; run: pip install .[parquet]")


def _read_record(folder: Path) -> RunRecord | None:
    """Read a volume's run.json without what would fill the memory."""
    if record := RunRecord.read(folder):
        files = {name: record.files[name] for name in READ if name in record.files}
        record = replace(record, command=[], files=files)
    return record


def _recorded(record: RunRecord | None) -> tuple[str | None, str | None]:
    return (record.patient, record.subset) if record else (None, None)


def _find_table(folder: Path, record: RunRecord | None) -> Path | str:
    """Return the table of slices of a volume, or why there is none.

    Raises `InputError` when a result file was changed.
    """
    changed = record and record.changed_file(folder)
    table = folder / layout.RAW_DATA_NAME
    if record and not changed:
        return table
    if (folder / layout.UNFINISHED_FOLDER).exists() or (table.exists() and not record):
        return "its run is unfinished; rerun the same command to resume"
    if changed:
        raise InputError(
            f"{changed}: missing, or changed since its run; process its image again, with"
            " --overwrite"
        )
    # The names sort by time.
    published = sorted(path for path in folder.iterdir() if PUBLISHED_NAME.fullmatch(path.name))
    return published[-1] if published else NO_TABLE


def _volume_row(table: pd.DataFrame) -> dict:
    # The authors' tables do not have `lung_pixels`.
    has_lung = table["lung_pixels"] > 0 if "lung_pixels" in table else table["jaccard"].notna()
    lung_slices = has_lung.sum()
    row = {"image": table["image"].iloc[0], "slices": len(table), "lung_slices": lung_slices}
    for metric in metrics_in(table):
        statistics = results.statistics_in(table[metric])
        row |= {f"{metric}_{name}": value for name, value in statistics.items()}
    if "predicted_pixels" in table:  # not in the authors' tables
        row["lung_slices_dice"] = results.lung_slices_dice(table)
    if "interactions" in table and table["interactions"].notna().any():
        row["interactions"] = table["interactions"].sum()
    return row


def _summarize(slices: pd.DataFrame, volumes: pd.DataFrame) -> pd.DataFrame:
    """Return a row per metric, over all slices; those of whole volumes are over the volumes."""
    names = [*volume_metrics_in(volumes), *(["interactions"] if "interactions" in volumes else [])]
    of_volumes = results.statistics_of(volumes[names]).assign(slices=pd.NA)
    summary = pd.concat([results.summarize(slices), of_volumes], ignore_index=True)
    return summary.astype({"slices": "Int64"})


def _empty_row(folder: Path) -> dict:
    table = results.read_empty_slices(folder)
    pixels, mm2 = table["predicted_pixels"], table["predicted_mm2"]
    return {
        "image": folder.name,
        "slices_without_lung": len(table),
        "with_false_positives": (pixels > 0).sum(),
        "pixels_avg": pixels.mean(),
        "mm2_avg": mm2.mean(),
        "mm2_max": mm2.max(),
    }
