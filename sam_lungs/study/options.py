"""The options of a study, each defined once, for the command line, run.json and the docs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sam_lungs.data.case_files import ALIGNMENTS, FAULTS, CaseFiles, Reading
from sam_lungs.prompts.protocols import NEGATIVES, POINTS, PROTOCOLS, PromptProtocol
from sam_lungs.segmenters.base import (
    DEVICES,
    EMBEDDINGS_PRECISIONS,
    MASK_CHOICES,
    PRECISIONS,
    PREPROCESSINGS,
)
from sam_lungs.segmenters.presets import NAMES, folder_name, parse_model
from sam_lungs.study.input_options import (
    check_window,
    parse_allow,
    parse_labels,
    parse_names,
    parse_spacing,
)
from sam_lungs.study.metrics import METRICS, SURFACE_METRICS
from sam_lungs.utils.cli import option
from sam_lungs.utils.errors import InputError

if TYPE_CHECKING:
    from sam_lungs.data.manifest import Dataset

EMPTY_SLICES = ("skip", "nearest")
OBJECTS = ("together", "apart")
# Names on the command line -> names in the tables.
METRIC_NAMES = {
    **{name: name for name in METRICS},
    "nsd": "nsd",
    "hd95": "hd95_mm",
    "volume_dice": "volume_dice",
    "one_click": "one_click",
}
# With one positive point per label, and nothing else.
ONE_CLICK_PROTOCOLS = ("points", "centroid_points")
# What `--debug` draws over a slice.
LAYERS = ("mask", "contours", "points", "box")
PAPER = PromptProtocol()


def parse_metrics(text: str) -> tuple[str, ...]:
    """Parse metrics separated by commas; return their names in the tables, in a fixed order.

    With a fixed order, two texts that make the same tables have the same fingerprint.
    """
    names = text.split(",")
    for name in names:
        if name not in METRIC_NAMES:
            raise InputError(f"unknown metric {name!r}; the metrics are {', '.join(METRIC_NAMES)}")
    return tuple(METRIC_NAMES[name] for name in METRIC_NAMES if name in (*METRICS, *names))


def parse_models(text: str) -> str:
    """Parse names of models separated by commas; return the text."""
    names = text.split(",")
    for name in names:
        parse_model(name)
    if len(set(names)) < len(names):
        raise InputError("a model is given twice; give each once")
    return text


def parse_protocol_names(text: str) -> tuple[str, ...]:
    """Parse names of prompt protocols separated by commas."""
    for name in text.split(","):
        if name not in PROTOCOLS:
            raise InputError(f"unknown protocol {name!r}; the protocols are {', '.join(PROTOCOLS)}")
    return tuple(text.split(","))


def parse_layers(text: str) -> tuple[str, ...]:
    """Parse layers of a picture separated by commas; return them in a fixed order."""
    names = text.split(",")
    for name in names:
        if name not in LAYERS:
            raise InputError(f"unknown layer {name!r}; the layers are {', '.join(LAYERS)}")
    return tuple(name for name in LAYERS if name in names)


def parse_negative(text: str) -> str | tuple[int, int]:
    """Parse the name of a negative point, or the (row, column) of one."""
    if text in NEGATIVES:
        return text
    if not re.fullmatch(r"\d{1,9},\d{1,9}", text):
        raise InputError(f"give {', '.join(NEGATIVES)}, or pixels as ROW,COLUMN ROW,COLUMN")
    row, column = text.split(",")
    return int(row), int(column)


def parse_tolerance(text: str) -> float:
    """Parse a distance in mm, at least 0."""
    try:
        tolerance_mm = float(text)
    except ValueError:
        tolerance_mm = -1
    if not 0 <= tolerance_mm < float("inf"):
        raise InputError("give a number of mm, at least 0")
    return tolerance_mm


def parse_batch_size(text: str) -> int | None:
    """Parse a number of slices; `auto` is None."""
    return None if text == "auto" else parse_count(text)


def parse_count(text: str) -> int:
    """Parse an integer, at least 1; PyTorch cannot take one of more than 9 digits."""
    if not text.isdecimal() or len(text) > 9 or int(text) < 1:
        raise InputError("give an integer, at least 1, of at most 9 digits")
    return int(text)


def parse_rows(text: str) -> int:
    """Parse an integer that may be negative."""
    if not re.fullmatch(r"[+-]?\d{1,9}", text):
        raise InputError("give an integer of at most 9 digits")
    return int(text)


@dataclass(frozen=True)
class Options:
    """The options of `process_image.py`; every default reproduces the paper.

    Fields with `decides=True` are part of a run's fingerprint, see `study.run_record`. The prompt
    options are in the fingerprint too, as a `PromptProtocol`.
    """

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
    slice: int | None = option(
        "process only this slice and print its metrics", None, "input", "-s", metavar="N"
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

    output_folder: Path | None = option(
        "folder of the results",
        None,
        "output",
        shown_default="results/ beside the image, or in the folder of the dataset",
    )
    debug: bool = option(
        "draw every processed slice, and write its prompts", False, "output", "-d", decides=True
    )
    draw: tuple[str, ...] = option(
        f"what --debug draws: {', '.join(LAYERS)}; mask: the predicted mask, contours: those of the"
        " reference masks",
        LAYERS,
        "output",
        parse=parse_layers,
        metavar="NAME,NAME",
        shown_default=",".join(LAYERS),
        decides=True,
    )
    save_masks: bool = option(
        "write predicted masks as NIfTI, on the grid of the image", False, "output", decides=True
    )
    report: bool = option(
        "join the results of all volumes and write a report at the end; ignored with --slice",
        False,
        "output",
    )
    overwrite: bool = option(
        "replace existing results, also those of other inputs or options; only those of exactly"
        " this run are kept",
        False,
        "output",
    )
    dry_run: bool = option(
        "check all inputs, list every fault, and estimate the time; write nothing",
        False,
        "output",
        "-n",
    )

    # `__post_init__` sets the default. None with a folder whose config.json names the family.
    model: str | None = option(
        f"one or several models: {', '.join(NAMES)}, or hub:OWNER/NAME@REVISION",
        None,
        "model",
        parse=parse_models,
        metavar="MODEL,MODEL",
        shown_default="vit_l",
    )
    checkpoint: Path | None = option(
        "weights file", None, "model", shown_default="the official one"
    )
    model_folder: Path | None = option(
        "folder with config.json and model.safetensors, as transformers writes it; --model may be"
        " left out",
        None,
        "model",
    )
    mask_choice: str = option(
        "which of the masks that a model predicts is used; model: that of the model's authors",
        "model",
        "model",
        choices=MASK_CHOICES,
        decides=True,
    )
    preprocessing: str = option(
        "window of CT; common: the same slice for all models; native: the window of the model's"
        " authors for lungs, which medsam has",
        "common",
        "model",
        choices=PREPROCESSINGS,
        decides=True,
    )
    device: str = option(
        "device of the model; auto: GPUs if there are any, else the CPU; cuda: all visible GPUs",
        "auto",
        "model",
        choices=DEVICES,
    )
    precision: str = option(
        "precision of the image encoder", "float32", "model", choices=PRECISIONS, decides=True
    )
    batch_size: int | None = option(
        "number of slices that a GPU encodes at once; auto: as many as fit into its memory",
        None,
        "model",
        parse=parse_batch_size,
        metavar="N",
        shown_default="auto",
    )
    threads: int | None = option(
        "number of CPU threads of PyTorch",
        None,
        "model",
        parse=parse_count,
        metavar="N",
        shown_default="PyTorch's choice",
    )
    embeddings_folder: Path | None = option(
        "save image embeddings in this folder, and reuse those that are there", None, "model"
    )
    embeddings_precision: str = option(
        "precision of saved embeddings",
        "float32",
        "model",
        choices=EMBEDDINGS_PRECISIONS,
        decides=True,
    )

    points: str = option("positive points", PAPER.points, "prompts", choices=POINTS)
    # One name, or a list: of one name, or of points.
    negative: Sequence[str] = option(
        f"negative points: {', '.join(NEGATIVES)}, or pixels of the slice, as many as you like",
        PAPER.negative,
        "prompts",
        parse=parse_negative,
        metavar="ROW,COLUMN",
    )
    negative_offset: int = option(
        "rows to move the negative point down (the paper tries 45); it stops at the border, where"
        " the authors' point leaves the slice",
        PAPER.negative_offset_rows,
        "prompts",
        parse=parse_rows,
        metavar="ROWS",
    )
    box: bool = option("prompt with the box around all objects", PAPER.box, "prompts")
    objects: str = option(
        "prompt all labels together, as the paper does, or each apart and unite the masks",
        "together",
        "prompts",
        choices=OBJECTS,
        decides=True,
    )
    prompts: tuple[str, ...] | None = option(
        f"several protocols in one run, instead of the options above: {', '.join(PROTOCOLS)}",
        None,
        "prompts",
        parse=parse_protocol_names,
        metavar="NAME,NAME",
    )

    metrics: tuple[str, ...] = option(
        f"metrics: {', '.join(METRIC_NAMES)}; the first two are always reported",
        METRICS,
        "measurement",
        parse=parse_metrics,
        metavar="NAME,NAME",
        shown_default=",".join(METRICS),
        decides=True,
    )
    tolerance_mm: float = option(
        "distance between outlines that still counts as agreement, for nsd",
        1.0,
        "measurement",
        parse=parse_tolerance,
        metavar="MM",
        decides=True,
    )
    empty_slices: str = option(
        "slices without objects: skip them, or use the prompts of the nearest slice with objects,"
        " to count false positives",
        "skip",
        "measurement",
        choices=EMPTY_SLICES,
        decides=True,
    )

    def __post_init__(self) -> None:
        """Raise `InputError` for options that would have no effect in their combination."""
        if self.model is None and self.model_folder is None:
            object.__setattr__(self, "model", "vit_l")
        self._check_input()
        for name in ("checkpoint", "model_folder"):
            if getattr(self, name) and len(self.models) > 1:
                raise InputError(f"--{name} is for one model; run the models one by one")
        if self.prompts and self._own_protocol != PAPER:
            raise InputError("--prompts replaces the other prompt options; leave them out")
        negative = self._own_protocol.negative
        if not isinstance(negative, str) and any(isinstance(each, str) for each in negative):
            raise InputError("--negative takes one name, or only points; leave the others out")
        if self.negative_offset and negative not in ("box_center", "slice_center"):
            raise InputError(
                "--negative_offset has no effect with --negative none or points; leave one out"
            )
        if not self._own_protocol.kinds & {"points", "box"}:
            raise InputError("--points none needs the box; leave --no_box out")
        if self.draw != LAYERS and not self.debug:
            raise InputError("--draw has no effect; add --debug")
        if self.embeddings_folder is None and self.embeddings_precision != "float32":
            raise InputError("--embeddings_precision has no effect; add --embeddings_folder")
        if self.tolerance_mm != 1.0 and "nsd" not in self.metrics:
            raise InputError("--tolerance_mm has no effect; add --metrics nsd")
        if self.slice is not None:
            for name in ("save_masks", "overwrite"):
                if getattr(self, name):
                    raise InputError(f"--{name} has no effect with --slice; leave one of them out")
            if "volume_dice" in self.metrics:
                raise InputError("--metrics volume_dice has no value with --slice; leave one out")
        clicks = [PROTOCOLS[name] for name in ONE_CLICK_PROTOCOLS]
        if self.one_click and not (
            self.objects == "apart" and all(each in clicks for each in self.protocols.values())
        ):
            raise InputError(
                "--metrics one_click needs one point per prompt; add --objects apart and --prompts"
                f" {' or '.join(ONE_CLICK_PROTOCOLS)}"
            )

    def _check_input(self) -> None:
        images, masks = len(self.image_file_path), len(self.masks_file_path)
        if self.dataset and (images or masks):
            raise InputError("--dataset names the images and masks; leave out -i and -m")
        if self.cases and not self.dataset:
            raise InputError("--cases has no effect; add --dataset")
        if not self.dataset and not (images and masks):
            raise InputError("give images with -i and their masks with -m, or --dataset")
        if images > 1 and images != masks:
            raise InputError(
                f"{images} images but {masks} masks; give one masks file for each image, in the"
                " same order"
            )
        if parse_labels(self.labels) and images == 1 and masks > 1:
            raise InputError("--labels has no effect with a masks file per object; leave one out")
        if self.series and images > 1:
            raise InputError("--series is for one image; process the images one by one")

    @property
    def _own_protocol(self) -> PromptProtocol:
        negative = self.negative
        if not isinstance(negative, str):
            negative = (
                negative[0] if len(negative) == 1 and negative[0] in NEGATIVES else tuple(negative)
            )
        return PromptProtocol(self.points, negative, self.negative_offset, self.box)

    @property
    def models(self) -> tuple[str | None, ...]:
        """The names of the models."""
        return tuple(self.model.split(",")) if self.model else (None,)

    def for_each_model(self) -> "list[Options]":
        """Return the options of each model alone.

        For one of several models, the names of protocols begin with the folder of the model.
        """
        if len(self.models) == 1:
            return [self]
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return [_OneOfSeveral(**values | {"model": model}) for model in self.models]

    @property
    def protocols(self) -> dict[str, PromptProtocol]:
        """The prompt protocols by name, which is a folder too; without `--prompts` it is ""."""
        if self.prompts:
            return {name: PROTOCOLS[name] for name in self.prompts}
        return {"": self._own_protocol}

    @property
    def needs_spacing(self) -> bool:
        """Whether a metric is measured in mm."""
        return any(metric in SURFACE_METRICS for metric in self.metrics)

    @property
    def one_click(self) -> bool:
        """Whether all masks that a model predicts for one point are measured."""
        return "one_click" in self.metrics

    @cached_property
    def case_files(self) -> list[CaseFiles]:
        """The cases to process, with the options for reading them.

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
        if len(self.image_file_path) == 1:
            return [CaseFiles(self.image_file_path[0], tuple(self.masks_file_path), reading)]
        paths = zip(self.image_file_path, self.masks_file_path, strict=True)
        return [CaseFiles(image, (masks,), reading) for image, masks in paths]

    @property
    def problems(self) -> list[str]:
        """A line for each file of the dataset that has no counterpart."""
        return self._dataset.problems if self._dataset else []

    @cached_property
    def _dataset(self) -> "Dataset | None":
        if self.dataset is None:
            return None
        from sam_lungs.data.manifest import read_dataset  # --help does not need YAML

        return read_dataset(self.dataset, self.cases)


class _OneOfSeveral(Options):
    """The options of one of several models."""

    @property
    def protocols(self) -> dict[str, PromptProtocol]:
        folder = folder_name(self.model)
        named = super().protocols.items()
        return {f"{folder}/{name}" if name else folder: protocol for name, protocol in named}
