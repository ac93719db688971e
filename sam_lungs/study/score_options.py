"""The options of `score_masks.py`, and which predictions belong to which case."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sam_lungs.data.case_files import CaseFiles
from sam_lungs.data.names import SUFFIXES
from sam_lungs.study.input_options import InputOptions, parse_labels
from sam_lungs.study.layout import MASKS_NAME
from sam_lungs.study.measurement_options import MeasurementOptions
from sam_lungs.utils.cli import option
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.text import count

ALIGN_PREDICTIONS = ("affine", "voxels")


@dataclass(frozen=True)
class ScoreOptions(MeasurementOptions, InputOptions):
    """The options of `score_masks.py`."""

    # Those of `study.options.Options` that the recorder asks for.
    debug = False

    predictions: Sequence[Path] = option(
        "predicted masks: a file per masks file in the same order, or a file per object of one"
        " case; with --dataset a folder, or a pattern such as out/{case}/{object}.nii.gz",
        (),
        "predictions",
        "-p",
        shown_default="required",
    )
    prediction_labels: Sequence[str] = option(
        "labels of the predicted masks to use, as --labels; objects have the names of --labels",
        (),
        "predictions",
        metavar="LABELS",
        shown_default="as the reference masks, or all",
        decides=True,
    )
    align_predictions: str = option(
        "affine: place predicted masks by their affine, where it is known; voxels: compare voxels"
        " with the same index",
        "affine",
        "predictions",
        choices=ALIGN_PREDICTIONS,
        decides=True,
    )
    objects: str = option(
        "score all objects together, or each apart, with a results folder for each object",
        "together",
        "predictions",
        choices=("together", "apart"),
        decides=True,
    )
    name: str | None = option(
        "name of the model or person that made the masks; it is a folder of the results too",
        None,
        "predictions",
        shown_default="the name of the predictions' folder",
    )

    output_folder: Path | None = option(
        "folder of the results; those of these masks are in NAME/",
        None,
        "output",
        shown_default="results/ beside the image, or in the folder of the dataset",
    )
    save_masks: bool = option(
        "write the predicted masks on the grid of the image; the report draws them",
        False,
        "output",
        decides=True,
    )
    report: bool = option("join the results and write a report at the end", False, "output")
    overwrite: bool = option(
        "replace existing results, also those of other inputs or options", False, "output"
    )
    dry_run: bool = option("check all inputs, and write nothing", False, "output", "-n")

    def __post_init__(self) -> None:
        """Raise `InputError` for options that do not fit together."""
        if not self.predictions:
            raise InputError("give predicted masks with -p")
        self.check_input(needs_images=False)
        self.check_metrics()
        if self.one_click:
            raise InputError("--metrics one_click needs a model; leave it out")
        parse_labels(self.prediction_labels)
        if self.dataset and len(self.predictions) > 1:
            raise InputError(
                "with --dataset give one folder of predictions, or one pattern between quotes"
            )
        if self.name and ("/" in self.name or self.name.startswith(".")):
            raise InputError("--name is a folder's name; leave out / and a dot at its start")

    @property
    def source_name(self) -> str:
        """The name of what made the predictions."""
        if self.name:
            return self.name
        path = Path(os.path.abspath(self.predictions[0]))
        is_folder = self.dataset and "{case}" not in str(path)
        folders = [path, *path.parents] if is_folder else path.parents
        return next(each.name for each in folders if "{" not in each.name)

    @property
    def prediction_objects(self) -> dict[str, tuple[int, ...]] | None:
        """The objects of `--prediction_labels`."""
        return parse_labels(self.prediction_labels)

    def prediction_paths(self) -> dict[Path, list[Path]]:
        """Return the files of predicted masks of each case of all parts, by `CaseFiles.path`.

        Raises `InputError` when they cannot be assigned to the cases, and when no case has one.
        """
        cases = self.all_case_files
        if self.dataset:
            (path,) = self.predictions
            paths = {files.path: _find(path, files) for files in cases}
        elif len(cases) == 1:
            paths = {cases[0].path: list(self.predictions)}
        elif len(cases) == len(self.predictions):
            # Not by their names: cases of two folders may have the same one.
            pairs = zip(cases, self.predictions, strict=True)
            paths = {files.path: [one] for files, one in pairs}
        else:
            raise InputError(
                f"{count(len(self.predictions), 'prediction')} but"
                f" {count(len(cases), 'masks file')}; give one prediction for each masks file, in"
                " the same order"
            )
        for each in paths.values():
            absent = [one for one in each if not one.exists()]
            # A prediction that is missing as a whole is empty, but not one that was named.
            if absent and (len(absent) < len(each) or not self.dataset):
                raise InputError(f"{absent[0]}: no such file; check the path")
        paths = {name: each if each[0].exists() else [] for name, each in paths.items() if each}
        if not any(paths.values()):
            first = cases[0].name
            raise InputError(
                f"{self.predictions[0]}: has no predictions, such as {first}.nii.gz or"
                f" {first}/{MASKS_NAME}; check the path, or give a pattern with {{case}}"
            )
        return {files.path: paths.get(files.path, []) for files in cases}


def _find(path: Path, files: CaseFiles) -> list[Path]:
    """Return the predictions of a case in a folder, or those that a pattern names.

    In a folder they are `CASE.nii.gz`, with any suffix that can be read, or those in the results
    folder `CASE`.
    """
    if "{case}" in str(path):
        return _fill(str(path), files)
    candidates = [path / f"{files.name}{suffix}" for suffix in SUFFIXES]
    candidates.append(path / files.name / MASKS_NAME)
    found = [each for each in candidates if each.exists()]
    if len(found) > 1:
        raise InputError(
            f"{found[0]}: {found[1].name} is there too; give a pattern with {{case}} for one of"
            " them"
        )
    return found


def _fill(pattern: str, files: CaseFiles) -> list[Path]:
    """Return the paths of a pattern for a case, one for each structure if it has {object}."""
    text = pattern.replace("{case}", files.name)
    if "{object}" not in text:
        return [Path(text)]
    return [Path(text.replace("{object}", name)) for name in files.structures]
