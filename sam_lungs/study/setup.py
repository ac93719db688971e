"""The steps before the first case of a study: set threads, check options, load the model."""

import os
import re
import sys
from pathlib import Path

import torch

from sam_lungs.data import montgomery
from sam_lungs.data.case_files import CaseFiles
from sam_lungs.data.zenodo import PAPER_VOLUMES
from sam_lungs.prompts.protocols import PROTOCOLS
from sam_lungs.segmenters import registry
from sam_lungs.segmenters.base import BASELINES, Segmenter, check_kinds
from sam_lungs.segmenters.baselines import NEEDS_BOX
from sam_lungs.segmenters.devices import check_speed, choose_devices
from sam_lungs.segmenters.presets import NAMES
from sam_lungs.study import layout
from sam_lungs.study.explore.layout import EXPLORE_FOLDER
from sam_lungs.study.options import Options
from sam_lungs.study.replay import Replay
from sam_lungs.study.score_options import ScoreOptions
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import check_name
from sam_lungs.utils.text import count

MAX_NAME_BYTES = 255  # of a file name, on all common file systems
# These have no effect on baselines.
OF_NETWORKS = ("mask_choice", "precision", "embeddings_folder")


def prepare(options: Options) -> None:
    """Set the threads, and check the options that concern all cases.

    Raises `InputError` for a dataset file that cannot be read, when the results of a case cannot be
    named after it, or would be mixed with those of another case, when there is no such device,
    when a model does not accept the prompts, lacks a package, or has no native preprocessing, when
    a baseline cannot do what the options ask, when a file of prompts cannot be used, and when
    nothing would be written.
    """
    # Not a check of Options, because the dry run rehearses `--slice` as a run that writes tables.
    if not (options.has_masks or options.save_masks or options.debug or options.slice is not None):
        raise InputError("there are no reference masks; add --save_masks or --debug, or give -m")
    if options.threads:
        torch.set_num_threads(options.threads)
    choose_devices(options.device)
    for one in options.for_each_model():
        accepted = registry.check_model(one.model, one.checkpoint, one.model_folder)
        name = one.model or one.model_folder
        for protocol in one.protocols.values():
            if isinstance(protocol, Replay):
                protocol.check_kinds(accepted, name)
                continue
            check_kinds(protocol.kinds, accepted, name)
            if one.model == "box" and not protocol.box:
                raise InputError(NEEDS_BOX)
        if one.preprocessing == "native":
            registry.native_window(one.model)
    _check_baselines(options)
    check_names(options)
    if options.replays:
        _check_raters(options)


def check_names(options: Options | ScoreOptions) -> None:
    """Raise `InputError` when results of a case cannot be named after it, or would be mixed."""
    images = {}
    for files in options.all_case_files:
        study_folder = layout.study_folder(options.output_folder, files)
        _check_name(files, layout.results_folder(study_folder, "", files.name))
        # Without `image_`, because the tables leave it out.
        key = study_folder, files.name.removeprefix("image_")
        if key in images:
            raise InputError(
                f"{files.path}: has the same name as {images[key]} ({files.name}), so their"
                f" results in {study_folder} would be mixed; rename one of them"
            )
        images[key] = files.path


def existing_cases(options: Options | ScoreOptions) -> tuple[list[CaseFiles], list[str]]:
    """Return the cases whose files exist, and the faults of the others.

    All missing files are one fault, because they mostly have one reason.
    """
    existing, missing = [], []
    for files in options.case_files:
        paths = dict.fromkeys((files.path, *files.masks_paths))
        if absent := [path for path in paths if not os.path.exists(path)]:
            missing.append((files.name, absent))
        else:
            existing.append(files)
    if options.part and not options.case_files:
        cases = count(len(options.all_case_files), "case")
        print(f"part {'/'.join(map(str, options.part))} of {cases} is empty", file=sys.stderr)
    faults = list(options.problems)
    if missing:
        remedy = "check the path (nifti_to_numpy.py makes arrays)"
        if missing[0][0].removeprefix("image_") in PAPER_VOLUMES:
            remedy = "run scripts/download_dataset.sh, then scripts/nifti_to_numpy.sh"
        elif missing[0][0] in montgomery.CASES:
            remedy = "run scripts/download_dataset.sh montgomery"
        first, *others = [path for _, absent in missing for path in absent]
        of_cases = count(len(missing), "case")
        more = f"; {count(1 + len(others), 'file')} of {of_cases} are missing" if others else ""
        faults.append(f"{first}: no such file{more}; {remedy}")
    return existing, faults


def load_segmenters(options: Options, untrained: bool = False) -> list[Segmenter] | None:
    """Load the model that the options name, once per device; see `registry.load_segmenters`.

    untrained: with random weights, see `registry.load_untrained`.

    Raises `InputError` too when the precision is slower than float32, and this is not allowed.
    """
    if options.model not in BASELINES and not options.allow_slow:
        check_speed(options.precision, choose_devices(options.device))
    if untrained:
        return registry.load_untrained(
            options.model,
            options.device,
            options.precision,
            options.mask_choice,
            options.preprocessing,
        )
    return registry.load_segmenters(
        options.model,
        options.checkpoint,
        options.device,
        options.precision,
        options.model_folder,
        options.mask_choice,
        options.preprocessing,
    )


def identify_model(options: Options) -> dict:
    """Return the identity of the model that the options name; see `registry.identify`."""
    return registry.identify(
        options.model,
        options.checkpoint,
        options.model_folder,
        options.mask_choice,
        options.preprocessing,
    )


def _check_baselines(options: Options) -> None:
    """Raise `InputError` for options that baselines cannot follow, or that have no effect.

    Beside other models `OF_NETWORKS` are accepted, because they have an effect on those.
    """
    baselines = [model for model in options.models if model in BASELINES]
    if baselines and options.one_click:
        raise InputError(
            f"--metrics one_click needs three masks per prompt, and {baselines[0]} predicts one;"
            " leave one of them out"
        )
    for name in OF_NETWORKS:
        is_given = getattr(options, name) != getattr(Options, name)
        if is_given and len(baselines) == len(options.models):
            raise InputError(f"--{name} has no effect with --model {options.model}; leave it out")


def _check_name(files: CaseFiles, results_folder: Path) -> None:
    """Raise `InputError` when the results of a case cannot be named after it."""
    for path in (files.path, *files.masks_paths, results_folder):
        check_name(path)
    _check_folder_name(files.name, str(files.path))


def _check_folder_name(name: str, whose: str) -> None:
    """Raise `InputError` when a folder of results cannot have a name. whose: for the message."""
    folders = ("", EXPLORE_FOLDER, layout.FIGURES_FOLDER, layout.METHODS_FOLDER, *PROTOCOLS, *NAMES)
    without_every = re.sub(r"(^|_)every_\d+$", "", name)
    if without_every in folders or name.endswith((".csv", ".html")):
        raise InputError(
            f"{whose}: its results would be named {name}, which is the name of another"
            " result; rename it"
        )
    if len(name.encode()) > MAX_NAME_BYTES:
        raise InputError(
            f"{whose}: its results cannot be named {name}, because this is longer than"
            f" {MAX_NAME_BYTES} bytes; give it a shorter name"
        )


def _check_raters(options: Options) -> None:
    """Warn of prompts that are not used, and of raters who lack cases.

    Raises `InputError` when results cannot be named after a rater.
    """
    path, names = options.prompts_file, [files.name for files in options.all_case_files]
    for rater, replay in options.replays.of_raters.items():
        lacking = [name for name in names if name not in replay.cases]
        if not rater:
            continue
        whose = f"{path}, rater {rater!r}"
        if "/" in rater or rater.startswith(".") or not rater.isprintable() or rater in names:
            raise InputError(f"{whose}: results cannot be named after it; rename it")
        _check_folder_name(rater, whose)
        if lacking:
            print(
                f"warning: {whose}: has no prompts for {len(lacking)} of"
                f" {count(len(names), 'case')}, such as {lacking[0]}",
                file=sys.stderr,
            )
    if unknown := options.replays.unknown:
        print(
            f"warning: {path}: has prompts for {count(len(unknown), 'other case')}, such as"
            f" {unknown[0]}",
            file=sys.stderr,
        )
