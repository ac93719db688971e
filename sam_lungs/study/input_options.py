"""The options that say where the files of the cases are, and how they are read."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from sam_lungs.data.case_files import ALIGNMENTS, FAULTS, CaseFiles, Reading
from sam_lungs.data.windowing import parse_window
from sam_lungs.utils.cli import option
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import sha256_of
from sam_lungs.utils.text import count

if TYPE_CHECKING:
    from sam_lungs.data.manifest import Dataset


def check_window(text: str) -> str:
    """Return the text of `--window` after a check, see `data.windowing.choose_window`."""
    if text != "auto":
        parse_window(text)
    return text


def parse_names(text: str) -> tuple[str, ...]:
    """Parse names separated by commas."""
    names = tuple(text.split(","))
    if "" in names:
        raise InputError("give names separated by commas")
    return names


def parse_part(text: str) -> tuple[int, int]:
    """Parse K/N, of which K is from 1 to N."""
    parsed = re.fullmatch(r"([1-9]\d{0,8})/([1-9]\d{0,8})", text)
    if not parsed or int(parsed[1]) > int(parsed[2]):
        raise InputError("give K/N, such as 1/4, with K from 1 to N")
    return int(parsed[1]), int(parsed[2])


def parse_allow(text: str) -> tuple[str, ...]:
    """Parse names of faults separated by commas."""
    names = parse_names(text)
    for name in names:
        if name not in FAULTS:
            raise InputError(f"unknown fault {name!r}; the faults are {', '.join(FAULTS)}")
    return names


def parse_spacing(text: str) -> tuple[float, ...]:
    """Parse the distances in mm between rows, columns and, if given, slices."""
    try:
        spacing_mm = tuple(float(number) for number in text.split(","))
    except ValueError:
        spacing_mm = ()
    if len(spacing_mm) not in (2, 3) or not all(0 < size < float("inf") for size in spacing_mm):
        raise InputError("give ROWS,COLUMNS or ROWS,COLUMNS,SLICES in mm, such as 0.7,0.7,5")
    return spacing_mm


def parse_labels(texts: Sequence[str]) -> dict[str, tuple[int, ...]] | None:
    """Parse the values of `--labels`; return the labels of each object, `None` without a value.

    `10,11` makes each label an object, named after it; `left=10,11` merges labels to one object.

    Raises `InputError` for another text, for a label or a name that is given twice, and for both
    forms together.
    """
    objects = []
    for text in texts:
        # Names are written to tables; Python has a surrogate for a byte that is not UTF-8.
        named = r"(?!\d+=)[^=\ud800-\udfff]+="
        parsed = re.fullmatch(rf"({named})?([1-9]\d{{0,8}}(?:,[1-9]\d{{0,8}})*)", text)
        if not parsed:
            raise InputError(
                f"--labels {text}: give labels such as 10,11,12, or objects such as left=10,11"
                " right=12; a label is an integer, at least 1, and a name is not a number"
            )
        labels = tuple(map(int, parsed[2].split(",")))
        name = parsed[1]
        objects += [(name[:-1], labels)] if name else [(str(one), (one,)) for one in labels]
    for given in ([name for name, _ in objects], [one for _, labels in objects for one in labels]):
        for value in given:
            if given.count(value) > 1:
                raise InputError(f"--labels: {value} is given twice; leave one out")
    if len({"=" in text for text in texts}) > 1:
        raise InputError("--labels: give every object a name, as in left=10,11, or none of them")
    return dict(objects) or None


@dataclass(frozen=True)
class InputOptions:
    """Images and masks, from the command line or a dataset file; subclasses have `report`."""

    image_file_path: Sequence[Path] = option(
        "images: NIfTI, NumPy, NRRD, MHA, PNG or JPEG files, or folders of DICOM files",
        (),
        "input",
        "-i",
        shown_default="those of --dataset",
    )
    masks_file_path: Sequence[Path] = option(
        "label volumes, one per image in the same order; 0 is background, other values are objects;"
        " for one image also several files, one per object",
        (),
        "input",
        "-m",
        shown_default="those of --dataset",
    )
    dataset: Path | None = option(
        "YAML file that says where the images and masks of a dataset are", None, "input"
    )
    cases: tuple[str, ...] | None = option(
        "process only these cases of the dataset",
        None,
        "input",
        parse=parse_names,
        metavar="NAME,NAME",
        shown_default="all",
    )
    part: tuple[int, int] | None = option(
        "process only part K of N of the cases, for N machines or processes: case K, and every N-th"
        " after it",
        None,
        "input",
        parse=parse_part,
        metavar="K/N",
        shown_default="all",
    )
    window: str | None = option(
        "auto, lung, none, or LEVEL,WIDTH in Hounsfield units",
        None,
        "input",
        parse=check_window,
        shown_default="auto, or the dataset file's",
    )
    labels: Sequence[str] = option(
        "labels to use, 10,11,12, each an object, or merged to objects, left=10,11 right=12",
        (),
        "input",
        metavar="LABELS",
        shown_default="all but 0, or the dataset file's",
    )
    align: str | None = option(
        "how masks are laid over the image; auto: refuse other axes, warn about other positions;"
        " affine: turn the masks onto the grid of the image; voxels: as stored, as the paper does",
        None,
        "input",
        choices=ALIGNMENTS,
        shown_default="auto, or the dataset file's",
    )
    allow: tuple[str, ...] = option(
        f"accept these faults: {', '.join(FAULTS)}",
        (),
        "input",
        parse=parse_allow,
        metavar="NAME,NAME",
        shown_default="none",
    )
    spacing_mm: tuple[float, ...] | None = option(
        "distance between rows, columns and slices, for files that do not have it",
        None,
        "input",
        parse=parse_spacing,
        metavar="ROWS,COLUMNS[,SLICES]",
    )
    series: str | None = option(
        "SeriesInstanceUID to read from a folder with several DICOM series",
        None,
        "input",
        metavar="UID",
    )

    def check_input(self, needs_images: bool = True, needs_masks: bool = True) -> None:
        """Raise `InputError` for files that are missing, or options without effect."""
        images, masks = len(self.image_file_path), len(self.masks_file_path)
        if self.dataset and (images or masks):
            raise InputError("--dataset names the images and masks; leave out -i and -m")
        if self.cases and not self.dataset:
            raise InputError("--cases has no effect; add --dataset")
        if self.part and self.report:
            raise InputError(
                "--report is of all cases; leave it out, and when all parts are done run the same"
                " command with --report in place of --part"
            )
        if not self.dataset and not masks and not needs_images:
            raise InputError("give masks with -m, or --dataset")
        if not self.dataset and needs_images and not (images and (masks or not needs_masks)):
            raise InputError("give images with -i and their masks with -m, or --dataset")
        if images > 1 and images != masks and self.has_masks:
            raise InputError(
                f"{images} images but {count(masks, 'masks file')}; give one masks file for each"
                " image, in the same order"
            )
        if parse_labels(self.labels) and images == 1 and masks > 1:
            raise InputError("--labels has no effect with a masks file per object; leave one out")
        if self.series and images > 1:
            raise InputError("--series is for one image; process the images one by one")
        for given, names, remedy in (
            (images or self.dataset, ("window", "series"), "an image; give -i"),
            (self.has_masks, ("labels", "align"), "masks; give -m"),
        ):
            for name in names:
                if getattr(self, name) and not given:
                    raise InputError(f"--{name} has no effect without {remedy}")

    @property
    def has_masks(self) -> bool:
        """Whether there are reference masks."""
        return bool(self.masks_file_path or self.dataset)

    @property
    def case_files(self) -> list[CaseFiles]:
        """The cases to process: of all, those of the part; raises as `all_case_files` does."""
        if self.part is None:
            return self.all_case_files
        number, parts = self.part
        return self.all_case_files[number - 1 :: parts]

    @cached_property
    def all_case_files(self) -> list[CaseFiles]:
        """The cases of all parts, with the options for reading them.

        Raises `InputError` as `read_dataset` does, and for `--labels` with a dataset that has a
        masks file per object.
        """
        given = {
            "window": self.window,
            "align": self.align,
            "objects": parse_labels(self.labels),
            "spacing_mm": self.spacing_mm,
            "series": self.series,
            "allow": self.allow or None,
        }
        given = {name: value for name, value in given.items() if value is not None}
        if self._dataset:
            cases = self._dataset.cases
            if self.labels and any(len(files.masks_paths) > 1 for files in cases):
                raise InputError(f"{self.dataset}: has a masks file per object; leave out --labels")
            return [replace(each, reading=replace(each.reading, **given)) for each in cases]
        reading = Reading(**given)
        if not self.image_file_path:
            return [CaseFiles(None, (masks,), reading) for masks in self.masks_file_path]
        if not self.masks_file_path:
            return [CaseFiles(image, (), reading) for image in self.image_file_path]
        if len(self.image_file_path) == 1:
            return [CaseFiles(self.image_file_path[0], tuple(self.masks_file_path), reading)]
        paths = zip(self.image_file_path, self.masks_file_path, strict=True)
        return [CaseFiles(image, (masks,), reading) for image, masks in paths]

    @property
    def problems(self) -> list[str]:
        """A line for each file of the dataset without a counterpart; part 1 has all of them."""
        is_first = self.part is None or self.part[0] == 1
        return self._dataset.problems if self._dataset and is_first else []

    @cached_property
    def dataset_identity(self) -> dict[str, str] | None:
        """`file` and `sha256` of the dataset file; None without one."""
        if self.dataset is None:
            return None
        return {"file": str(self.dataset), "sha256": sha256_of(self.dataset)}

    def command_of(self, files: CaseFiles) -> list[str]:
        """Return the command line; where it names several volumes, only a case's own files.

        "... and N more" is in place of the others, because the command line is in the record of
        every volume.
        """
        own = (files.image_path, *files.masks_paths)
        command = []
        for part in self._command:
            if isinstance(part, str):
                command.append(part)
                continue
            kept = [part[path] for path in own if path in part]
            command += [*kept, f"... and {len(part) - len(kept)} more"]
        return command

    @cached_property
    def _command(self) -> list[str | dict[Path, str]]:
        """The command line, in which the paths of volumes in a row are one dictionary."""
        if len(self.all_case_files) == 1 or self.dataset:
            return sys.argv
        volumes = {*self.image_file_path, *self.masks_file_path, *getattr(self, "predictions", ())}
        command: list[str | dict[Path, str]] = []
        for is_volume, group in groupby(sys.argv, lambda text: Path(text) in volumes):
            texts = list(group)
            command += [{Path(text): text for text in texts}] if is_volume else texts
        return command

    @cached_property
    def _dataset(self) -> "Dataset | None":
        if self.dataset is None:
            return None
        from sam_lungs.data.manifest import read_dataset  # --help does not need YAML

        return read_dataset(self.dataset, self.cases)
