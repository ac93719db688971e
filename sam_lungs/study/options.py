"""The options of a study, each defined once, for the command line, run.json and the docs."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from sam_lungs.prompts.protocols import NEGATIVES, POINTS, PROTOCOLS, PromptProtocol
from sam_lungs.segmenters.base import (
    DEVICES,
    EMBEDDINGS_PRECISIONS,
    MASK_CHOICES,
    PRECISIONS,
    PREPROCESSINGS,
)
from sam_lungs.segmenters.presets import NAMES, folder_name, parse_model
from sam_lungs.study.input_options import InputOptions
from sam_lungs.study.measurement_options import (
    METRICS_3D,
    VOLUME_METRICS,
    MeasurementOptions,
)
from sam_lungs.utils.cli import option
from sam_lungs.utils.errors import InputError

if TYPE_CHECKING:
    from sam_lungs.study.replay import Replay, Replays

EMPTY_SLICES = ("skip", "nearest")
OBJECTS = ("together", "apart")
# With one positive point per label, and nothing else.
ONE_CLICK_PROTOCOLS = ("points", "centroid_points")
# What `--debug` draws over a slice.
LAYERS = ("mask", "contours", "points", "box")
PAPER = PromptProtocol()
# These have no effect on prompts of a file.
OF_PROTOCOLS = (
    *("points", "negative", "negative_offset", "box", "objects", "prompts", "prompt_every"),
    "empty_slices",
)


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


def parse_every(text: str) -> tuple[int, ...]:
    """Parse numbers of slices separated by commas, each at least 1."""
    every = tuple(parse_count(number) for number in text.split(","))
    if len(set(every)) < len(every):
        raise InputError("a number is given twice; give each once")
    return every


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
class Options(MeasurementOptions, InputOptions):
    """The options of `process_image.py`; every default reproduces the paper.

    Fields with `decides=True` are part of a run's fingerprint, see `study.run_record`. The prompt
    options are in the fingerprint too, as a `PromptProtocol`.
    """

    slice: int | None = option(
        "process only this slice and print its metrics", None, "input", "-s", metavar="N"
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
    allow_slow: bool = option(
        "compute in this --precision also on a processor where it is slower than float32",
        False,
        "model",
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
    prompt_every: tuple[int, ...] = option(
        "prompt only every K-th slice of an object, and its first and last; the prompts of the"
        " slices between are interpolated; several K are several protocols in one run",
        (1,),
        "prompts",
        parse=parse_every,
        metavar="K,K",
        shown_default="1",
    )

    prompts_file: Path | None = option(
        "prompts of your own, instead of the options above: a CSV table, slice_N_prompt.yml as"
        " --debug writes it, or a folder of these; --masks_file_path may be left out",
        None,
        "prompts",
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
        self.check_input(needs_masks=self.prompts_file is None)
        for name in ("checkpoint", "model_folder"):
            if getattr(self, name) and len(self.models) > 1:
                raise InputError(f"--{name} is for one model; run the models one by one")
        if self.prompts_file:
            self._check_prompts_file()
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
        if self.allow_slow and self.precision == "float32":
            raise InputError("--allow_slow has no effect without --precision; leave it out")
        if self.embeddings_folder is None and self.embeddings_precision != "float32":
            raise InputError("--embeddings_precision has no effect; add --embeddings_folder")
        self.check_metrics()
        is_partial = self.empty_slices == "skip" and max(self.prompt_every) == 1
        if self.measures(*METRICS_3D) and is_partial and not self.prompts_file:
            raise InputError(
                "metrics in 3-D are of all slices; add --empty_slices nearest, to segment those"
                " without objects too, or --prompt_every"
            )
        if self.slice is not None:
            for name in ("save_masks", "overwrite"):
                if getattr(self, name):
                    raise InputError(f"--{name} has no effect with --slice; leave one of them out")
            if of_volume := [name for name in VOLUME_METRICS if name in self.metrics]:
                raise InputError(
                    f"--metrics {of_volume[0]} has no value with --slice; leave one out"
                )
        if self.one_click and self.prompt_every != (1,):
            raise InputError(
                "--metrics one_click needs prompts in every slice; leave --prompt_every out"
            )
        clicks = [PROTOCOLS[name] for name in ONE_CLICK_PROTOCOLS]
        if self.one_click and not (
            self.objects == "apart" and all(each in clicks for each in self.protocols.values())
        ):
            raise InputError(
                "--metrics one_click needs one point per prompt; add --objects apart and --prompts"
                f" {' or '.join(ONE_CLICK_PROTOCOLS)}"
            )

    def _check_prompts_file(self) -> None:
        """Raise `InputError` for options without effect, and those that need reference masks."""
        for name in OF_PROTOCOLS:
            if getattr(self, name) != getattr(Options, name):
                name = "no_box" if name == "box" else name
                raise InputError(f"--{name} has no effect with --prompts_file; leave one out")
        if self.one_click:
            raise InputError(
                "--metrics one_click needs points that are made from the masks; leave out"
                " --prompts_file"
            )
        if not self.has_masks:
            for name in ("metrics", "tolerance_mm", "report"):
                if getattr(self, name) != getattr(Options, name):
                    raise InputError(f"--{name} needs reference masks; give -m, or leave it out")

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
        return self._of_each_model

    @cached_property
    def _of_each_model(self) -> "list[Options]":
        if len(self.models) == 1:
            return [self]
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return [_OneOfSeveral(**values | {"model": model}) for model in self.models]

    @property
    def protocols(self) -> "dict[str, PromptProtocol] | dict[str, Replay]":
        """The prompt protocols by name, which is a folder too.

        Without `--prompts` the name is "". With several K of `--prompt_every`, names end with
        `every_K`. With `--prompts_file` there is one for each rater.

        Raises `InputError` when the file of prompts cannot be read.
        """
        if self.replays:
            return self.replays.of_raters
        given = {name: PROTOCOLS[name] for name in self.prompts or ()} or {"": self._own_protocol}
        several = len(self.prompt_every) > 1
        return {
            f"{name}_every_{every}".lstrip("_") if several else name: replace(protocol, every=every)
            for name, protocol in given.items()
            for every in self.prompt_every
        }

    def protocols_of(self, case: str) -> "dict[str, PromptProtocol] | dict[str, Replay]":
        """Return the protocols of a case by name: of `--prompts_file` those with prompts for it."""
        if not self.replays:
            return self.protocols
        return {name: each for name, each in self.protocols.items() if case in each.cases}

    @cached_property
    def replays(self) -> "Replays | None":
        """The prompts of `--prompts_file`; raises `InputError` as `read_replays` does."""
        if self.prompts_file is None:
            return None
        from sam_lungs.study.replay import read_replays  # --help does not need YAML

        return read_replays(self.prompts_file, self.all_case_files)


class _OneOfSeveral(Options):
    """The options of one of several models."""

    @property
    def protocols(self) -> "dict[str, PromptProtocol] | dict[str, Replay]":
        folder = folder_name(self.model)
        named = super().protocols.items()
        return {f"{folder}/{name}" if name else folder: protocol for name, protocol in named}
