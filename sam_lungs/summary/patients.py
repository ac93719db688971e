"""Patients and subsets of volumes from a table, a pattern or a dataset file."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sam_lungs.data.manifest import read_dataset
from sam_lungs.data.manifest_rows import read_cells
from sam_lungs.utils.cli import option
from sam_lungs.utils.errors import InputError

COLUMNS = ("image", "patient", "subset")


class Patients(NamedTuple):
    """Where patients and subsets come from.

    source: its name in messages. find: name of a volume -> its patient and subset, each None where
    it is not known; None for a volume that the source does not have.
    """

    source: str
    find: Callable[[str], tuple[str | None, str | None] | None]


@dataclass(frozen=True, kw_only=True)
class PatientOptions:
    """The options of a script that joins results."""

    patients: str | Path | None = option(
        "the patient of each volume, in place of run.json: a CSV file with the columns"
        " image,patient[,subset], or a regular expression on the volume's name whose first group is"
        " the patient",
        None,
        "patients",
        metavar="TABLE_OR_PATTERN",
        shown_default="as run.json says",
    )
    dataset: Path | None = option(
        "dataset file (docs/datasets.md): take patients and subsets from it, and only its cases",
        None,
        "patients",
        metavar="FILE",
    )
    cases: tuple[str, ...] | None = option(
        "only these cases of --dataset",
        None,
        "patients",
        parse=lambda text: tuple(text.split(",")),
        metavar="NAME,NAME",
    )

    def read_patients(self) -> Patients | None:
        """Return the source that the options name; None without one.

        Raises `InputError` when it cannot be read, and for options that exclude each other.
        """
        if self.cases is not None and self.dataset is None:
            raise InputError("--cases has no effect without --dataset; add --dataset")
        if self.patients is not None and self.dataset is not None:
            raise InputError("--dataset has the patients already; leave out --patients")
        if self.dataset is not None:
            cases = read_dataset(self.dataset, self.cases).cases
            known = {case.name: (case.patient, case.subset) for case in cases}
            return Patients(str(self.dataset), known.get)
        if self.patients is None:
            return None
        if self.patients.endswith(".csv") or os.path.isfile(self.patients):
            return _read_table(Path(self.patients))
        return _by_pattern(self.patients)


def _read_table(path: Path) -> Patients:
    known = {}
    for where, cells in read_cells(path, COLUMNS, required=COLUMNS[:2]):
        if cells["image"] in known:
            raise InputError(f"{where}: {cells['image']} is there twice; leave one out")
        known[cells["image"]] = cells["patient"] or None, cells.get("subset") or None
    return Patients(str(path), known.get)


def _by_pattern(text: str) -> Patients:
    try:
        pattern = re.compile(text)
    except re.error as error:
        raise InputError(
            f"--patients {text}: neither a CSV file nor a regular expression ({error})"
        ) from error
    if not pattern.groups:
        raise InputError(f"--patients {text}: needs a group in parentheses, such as '(p[0-9]+)_.*'")

    def find(image: str) -> tuple[str, None]:
        match = pattern.fullmatch(image)
        return (match and match[1]) or image, None

    return Patients(f"--patients {text}", find)
