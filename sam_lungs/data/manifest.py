"""A dataset as a YAML file: where images and masks lie, how they are read, and whose they are.

docs/datasets.md describes every key.
"""

import os
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

import yaml

from sam_lungs.data.case_files import ALIGNMENTS, CaseFiles, Reading
from sam_lungs.data.manifest_rows import find_rows, nearest, read_table
from sam_lungs.data.windowing import parse_window
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import read_text

# Each key with the type of its value and an example.
KEYS = {
    "images": (str, '"imagesTr/{case}.nii.gz"'),
    "masks": (str, '"labelsTr/{case}.nii.gz"'),
    "root": (str, "../scans"),
    "table": (str, "cases.csv"),
    "objects": (dict, "{left: [lung_left], right: [lung_right]}"),
    "labels": ((dict, list), "{left: [10, 11], right: [12, 13, 14]}"),
    "window": (str, "lung"),
    "align": (str, "affine"),
    "spacing_mm": (list, "[0.7, 0.7, 5.0]"),
    "patient": (str, r"'(patient_\d+)_.*'"),
    "subset": (str, "'([a-z]+)_.*'"),
}


@dataclass(frozen=True)
class Dataset:
    """The cases of a dataset file, in the order of their names or of the table.

    problems: a line for each image without masks and for each masks file without an image.
    """

    cases: list[CaseFiles]
    problems: list[str]


def read_dataset(path: Path, cases: Collection[str] | None = None) -> Dataset:
    """Read a dataset file, and find the files of its cases; images and masks are not opened.

    cases: names of the cases to return, by default all; with names, `problems` is empty.

    Raises `InputError` when the file cannot be read; for an unknown, missing or wrong key; when
    there is no case, or two have the same name; and when a name of `cases` is unknown, or its files
    are not complete.
    """
    text = read_text(path)
    try:
        keys = _parse(text)
        reading, structures = _reading(keys)
        root = Path(os.path.normpath(path.parent / keys.get("root", "")))
        if "table" in keys:
            rows, problems = read_table(path.parent / keys["table"], root)
            if "labels" in keys and (several := [row.case for row in rows if len(row.masks) > 1]):
                raise InputError(
                    f"labels is for cases of one masks file, but case {several[0]} has several;"
                    " leave one of them out"
                )
        else:
            rows, problems = find_rows(root, keys["images"], keys["masks"], structures)
        if cases is not None:
            _check_chosen(cases, [row.case for row in rows], problems)
            chosen = set(cases)
            rows, problems = [row for row in rows if row.case in chosen], {}
        if not rows:
            raise InputError(next(iter(problems.values())))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    files = []
    for row in rows:
        patient, subset = row.patient, row.subset
        if "patient" in keys:
            patient = patient or _group(keys["patient"], row.case) or row.case
        if "subset" in keys:
            subset = subset or _group(keys["subset"], row.case)
        files.append(
            CaseFiles(
                row.image,
                row.masks,
                reading,
                row.case,
                root,
                patient,
                subset,
                tuple(structures),
            )
        )
    return Dataset(files, list(problems.values()))


def _parse(text: str) -> dict:
    """Return the keys and values of a dataset file after a check of each."""
    try:
        keys = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise InputError(
            f"is not YAML ({reason}); put paths and patterns between single quotes"
        ) from error
    if not isinstance(keys, dict):
        raise InputError("has no `key: value` lines; docs/datasets.md has examples")
    for key, value in keys.items():
        if key not in KEYS:
            raise InputError(f"unknown key {key!r}; {nearest(str(key), KEYS)}")
        if not isinstance(value, KEYS[key][0]):
            raise _wrong(keys, key)
    if "table" in keys:
        for key in ("images", "masks", "objects"):
            if key in keys:
                raise InputError(f"table is in place of {key}; leave one of them out")
    else:
        for key in ("images", "masks"):
            if key not in keys:
                raise InputError(f"has no {key}; write {key}: {KEYS[key][1]}")
            wanted = {"case", "object"} if key == "masks" and "objects" in keys else {"case"}
            if set(re.findall(r"\{(.*?)\}", keys[key])) != wanted:
                names = " and ".join(f"{{{name}}}" for name in sorted(wanted))
                raise InputError(
                    f"{key} must hold {names} and no other name in braces, but is {keys[key]!r}"
                    " ({object} needs the key objects)"
                )
    if "objects" in keys and "labels" in keys:
        raise InputError("objects is for a file per structure, labels for one file; leave one out")
    return keys


def _reading(keys: dict) -> tuple[Reading, list[str]]:
    """Return how the files are read, and the structures that `{object}` stands for."""
    objects, structures = None, []
    if "objects" in keys:
        names = _lists(keys, "objects", str)
        structures = [structure for each in names.values() for structure in each]
        # File i of a case is label i.
        objects = {
            name: tuple(structures.index(structure) + 1 for structure in each)
            for name, each in names.items()
        }
    elif "labels" in keys:
        objects = _lists(keys, "labels", int)
        if min(label for each in objects.values() for label in each) < 1:
            raise _wrong(keys, "labels")
    if keys.get("align", "auto") not in ALIGNMENTS:
        raise InputError(f"align is {keys['align']!r}; write one of {', '.join(ALIGNMENTS)}")
    if keys.get("window", "auto") != "auto":
        try:
            parse_window(keys["window"])
        except InputError as error:
            raise InputError(f"window is {keys['window']!r}; {error}") from error
    spacing_mm = keys.get("spacing_mm", [1, 1])
    if len(spacing_mm) not in (2, 3) or not all(
        type(size) in (int, float) and 0 < size < float("inf") for size in spacing_mm
    ):
        raise _wrong(keys, "spacing_mm")
    for key in ("patient", "subset"):
        try:
            groups = re.compile(keys.get(key, "()")).groups
        except re.error as error:
            raise InputError(f"{key} is not a regular expression ({error})") from error
        if not groups:
            raise InputError(f"{key} needs a group in parentheses, as in {key}: {KEYS[key][1]}")
    return Reading(
        window=keys.get("window", "auto"),
        align=keys.get("align", "auto"),
        objects=objects,
        spacing_mm=tuple(map(float, spacing_mm)) if "spacing_mm" in keys else None,
    ), structures


def _lists(keys: dict, key: str, item: type) -> dict[str, tuple]:
    """Return {object: its items} of `objects` or `labels`, each item used once."""
    value = keys[key]
    if isinstance(value, list):
        value = {str(label): label for label in value}
    lists = {
        name: tuple(items) if isinstance(items, list) else (items,) for name, items in value.items()
    }
    every = [each for items in lists.values() for each in items]
    is_right = all(type(name) is str for name in lists) and all(
        type(each) is item for each in every
    )
    if not (lists and all(lists.values()) and is_right):
        raise _wrong(keys, key)
    if len(set(every)) < len(every):
        raise InputError(f"{key} has an item twice: {value}; leave one of them out")
    return lists


def _check_chosen(chosen: Iterable[str], known: list[str], problems: dict[str, str]) -> None:
    names = set(known)
    for name in chosen:
        if name in problems:
            raise InputError(problems[name])
        if name not in names:
            raise InputError(f"has no case {name!r}; {nearest(name, known)}")


def _group(pattern: str, case: str) -> str | None:
    match = re.fullmatch(pattern, case)
    return match and match[1]


def _wrong(keys: dict, key: str) -> InputError:
    return InputError(f"{key} is {keys[key]!r}; write it like {key}: {KEYS[key][1]}")
