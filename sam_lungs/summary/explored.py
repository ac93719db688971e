"""Explorations of prompts -> a table for each kind, model and protocol, with intervals."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

from sam_lungs.study.explore.layout import VALUES_NAME, exploration_folder
from sam_lungs.study.explore.options import KINDS
from sam_lungs.study.explore.results import read_exploration
from sam_lungs.study.layout import RUN_NAME, UNFINISHED_FOLDER
from sam_lungs.study.run_record import RunRecord
from sam_lungs.summary.mixing import check_alike
from sam_lungs.summary.patients import Patients
from sam_lungs.summary.statistics import bootstrap_interval
from sam_lungs.utils.errors import InputError

EXPLORED_NAME = "explored.csv"
# Quantities that are summed over the volumes, and those that have no mean: positions.
COUNTS = re.compile("(never|reached)_.+|missed_slices")
POSITIONS = re.compile("(worst|best)_(row|column|slice)")


class ExploredVolume(NamedTuple):
    """What was found in a volume.

    case: its patient, or its name where the patient is not known.
    summary: columns `quantity`, `object`, `value`.
    slices: a row per `slice` and `object`, mean `dice` over all prompts, and perhaps `start_dice`.
    """

    folder: Path
    case: str
    record: RunRecord
    summary: pd.DataFrame
    slices: pd.DataFrame


class Explored(NamedTuple):
    """The explorations of a study.

    runs: kind -> name of the run (its model, protocol, or both) -> volumes.
    left_out: for each volume or run that is not in `runs`, a line that says why.
    """

    runs: dict[str, dict[str, list[ExploredVolume]]]
    left_out: list[str]


def read_explorations(
    study_folder: Path, patients: Patients | None = None, kinds: Sequence[str] = KINDS
) -> Explored:
    """Read all finished explorations of a study, of some kinds.

    Unfinished ones, volumes that `patients` does not have, and runs whose volumes were explored in
    different ways are left out with a warning.

    patients: by default those in the volumes' run.json.

    Raises `InputError` when a finished exploration cannot be read, or was changed.
    """
    explored = Explored({}, [])
    for kind in kinds:
        of_kind = exploration_folder(study_folder, kind, protocol="")
        runs = {}
        for folder in _volume_folders(of_kind):
            found = _read_volume(folder, patients)
            if isinstance(found, str):
                explored.left_out.append(f"{folder}: {found}; left out")
                print(f"warning: {explored.left_out[-1]}", file=sys.stderr)
            else:
                runs.setdefault(folder.parent, []).append(found)
        for folder, volumes in runs.items():
            records = {each.folder.name: each.record for each in volumes}
            try:
                check_alike(folder, records, records, remedy="leave one out")
            except InputError as error:
                explored.left_out.append(f"{error}; left out")
                print(f"warning: {explored.left_out[-1]}", file=sys.stderr)
                continue
            name = _run_name(folder.relative_to(of_kind), volumes)
            explored.runs.setdefault(kind, {})[name] = volumes
    return explored


def explored_table(volumes: Sequence[ExploredVolume]) -> pd.DataFrame:
    """Return a row per quantity and object: its mean over patients with its interval, or its sum.

    The value of a patient is the mean over the patient's volumes.

    Columns: those of `explored.csv` in docs/results.md.
    """
    values = pd.concat(
        each.summary.assign(volume=each.folder.name, case=each.case) for each in volumes
    )
    values = _with_shares(values)
    values = values[~values["quantity"].str.fullmatch(POSITIONS)]
    rows = []
    for (quantity, name), group in values.groupby(["quantity", "object"], sort=False):
        known = group.dropna(subset="value")
        row = {"quantity": quantity, "object": name}
        row |= {"patients": known["case"].nunique(), "volumes": len(known)}
        if COUNTS.fullmatch(quantity):
            row["sum"] = known["value"].sum()
        else:
            of_cases = known.groupby("case")["value"].mean().to_numpy()
            row["mean"] = of_cases.mean() if len(of_cases) else np.nan
            row["low"], row["high"] = bootstrap_interval(np.mean, of_cases)
        rows.append(row)
    columns = ["quantity", "object", "patients", "volumes", "mean", "low", "high", "sum"]
    return pd.DataFrame(rows, columns=columns).astype({"sum": "Int64"})


def differences(runs: dict[str, list[ExploredVolume]]) -> list[str]:
    """Return a line for each reason why the means of the runs are not of the same kind of data.

    runs: those of one kind.
    """
    lines = []
    explored = [{each.folder.name for each in volumes} for volumes in runs.values()]
    if any(names != explored[0] for names in explored):
        lines.append("The runs are not of the same volumes.")
    options = [each.record.options for volumes in runs.values() for each in volumes]
    for name in dict.fromkeys(name for each in options for name in each):
        if any(each.get(name) != options[0].get(name) for each in options):
            lines.append(f"Not all volumes were explored with the same --{name}.")
    return lines


def _run_name(folder: Path, volumes: Sequence[ExploredVolume]) -> str:
    """Return the name of a run; folder: below that of the kind."""
    if folder == Path():
        return f"{volumes[0].record.segmenter.get('model')} without --prompts"
    return folder.as_posix()


def _volume_folders(folder: Path) -> list[Path]:
    """Return the folders of volumes below the folder of a kind, finished or not."""
    names = (RUN_NAME, VALUES_NAME, UNFINISHED_FOLDER)
    found = {path.parent for name in names for path in folder.rglob(name)}
    return sorted(each for each in found if UNFINISHED_FOLDER not in each.parts)


def _read_volume(folder: Path, patients: Patients | None) -> ExploredVolume | str:
    """Return what was found in a volume, or why it is left out."""
    found = read_exploration(folder)
    if found is None:
        return "its exploration is unfinished; run the same command again to resume"
    of = patients.find(folder.name) if patients else (found.record.patient, found.record.subset)
    if of is None:
        return f"is not in {patients.source}"
    # The values of all volumes would take too much memory.
    numbers = [name for name in ("dice", "start_dice") if name in found.values]
    slices = found.values.groupby(["slice", "object"], sort=False)[numbers].mean().reset_index()
    return ExploredVolume(folder, of[0] or folder.name, found.record, found.summary, slices)


def _with_shares(values: pd.DataFrame) -> pd.DataFrame:
    """Return the quantities of volumes, and the share of objects that reached each target."""

    def counts(prefix: str) -> pd.Series:
        rows = values[values["quantity"].str.startswith(prefix)]
        rows = rows.assign(quantity=rows["quantity"].str.replace(prefix, "share_reached_"))
        return rows.set_index(["quantity", "object", "volume", "case"])["value"]

    reached = counts("reached_")
    shares = (reached / (reached + counts("never_"))).reset_index()
    return pd.concat([values, shares], ignore_index=True)
