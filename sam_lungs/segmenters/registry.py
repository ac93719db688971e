"""The segmenters by name. Importing this module does not import torch."""

import copy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sam_lungs.segmenters import checkpoints, hub
from sam_lungs.segmenters.base import BASELINES, PROMPT_KINDS
from sam_lungs.segmenters.families import ALL_PROMPTS, CHOICES, FAMILIES, describe
from sam_lungs.segmenters.model_folder import (
    family_of_folder,
    files_of,
    load_folder,
    load_original,
    untrained,
)
from sam_lungs.segmenters.presets import PRESETS, preset_of
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import sha256_of
from sam_lungs.utils.provenance import versions_of
from sam_lungs.utils.waiting import waiting

if TYPE_CHECKING:
    import torch

    from sam_lungs.segmenters.base import Segmenter

# For the family segment-anything. Change the text when the same voxels and weights give other
# embeddings. PACKAGES compute the embeddings and masks.
PREPROCESSING = "window, slice's own range to uint8, longest side resized by PIL, zeros after norm"
PACKAGES = ("torch", "torchvision", "segment-anything", "numpy", "pillow")


def weights_path(
    model: str | None, checkpoint: Path | None = None, model_folder: Path | None = None
) -> Path | None:
    """Return the path of the weights, a file or a folder, which may not exist yet.

    None for a baseline. Arguments as for `load_segmenters`.
    """
    if checkpoint or model_folder:
        return checkpoint or model_folder
    if model in BASELINES:
        return None
    if published := checkpoints.published_file(model):
        return checkpoints.CHECKPOINTS_FOLDER / published.file_name
    return hub.folder_of(model, preset_of(model), checkpoints.CHECKPOINTS_FOLDER)


def check_model(
    model: str | None, checkpoint: Path | None = None, model_folder: Path | None = None
) -> frozenset[str]:
    """Return the kinds of prompts that a model accepts, of `base.PROMPT_KINDS`.

    Nothing is downloaded or loaded. Arguments as for `load_segmenters`.

    Raises `InputError` when the arguments do not fit together, and when a package is missing.
    """
    _check(model, checkpoint, model_folder)
    preset = model and preset_of(model)
    if not (preset or model_folder):
        return ALL_PROMPTS
    hub.require("transformers", model or model_folder)
    family = (preset and preset.family) or (model_folder and family_of_folder(model_folder))
    # A model of the hub is of one of the families that its config.json names.
    return FAMILIES[family].prompt_kinds if family else ALL_PROMPTS


def native_window(model: str | None) -> tuple[float, float]:
    """Return level and width, in Hounsfield units, of the window of a model's authors for lungs.

    model: as for `load_segmenters`. Raises `InputError` when its authors have none.
    """
    preset = model and preset_of(model)
    family = preset and FAMILIES.get(preset.family)
    if not (family and family.native_window):
        having = [name for name, each in FAMILIES.items() if each.native_window]
        raise InputError(
            f"{model or '--model_folder'}: its authors have no window for CT, only those of"
            f" {', '.join(having)} have one; leave out --preprocessing native"
        )
    return family.native_window


@cache
def identify(
    model: str | None,
    checkpoint: Path | None = None,
    model_folder: Path | None = None,
    mask_choice: str = "model",
    preprocessing: str = "common",
) -> dict:
    """Return the identity of a model, see `base.Segmenter`; download its weights if missing.

    Cached, because hashing gigabytes takes seconds. Arguments as for `load_segmenters`.

    Further keys: `provenance` ("official": the SHA-256 is known; "seen": from the hub, unchanged
    since it was fetched; "given": a file or folder of the user; "none": a baseline), `licence`
    (None if not known) and `size_bytes` of the files.

    Raises `InputError` when the arguments do not fit together, and when the weights cannot be
    downloaded or read, or are not the official ones.
    """
    _check(model, checkpoint, model_folder)
    if model in BASELINES:
        from sam_lungs.segmenters import baselines

        return baselines.identify(model)
    given = checkpoint or model_folder
    path = given or checkpoints.fetch(model)
    files = [path] if checkpoint or not path.is_dir() else files_of(path)
    hashes = {each.name: sha256_of(each) for each in files}
    preset = model and preset_of(model)
    if not given and path.is_dir():
        _check_hashes(path, hashes, hub.recorded(path) | preset.sha256)
    identity = {"model": model or path.resolve().name}
    if preset or model_folder:
        family = (preset and preset.family) or family_of_folder(path)
        licence = FAMILIES[family].licence
        identity |= describe(family, mask_choice, preprocessing)
    else:
        licence = "Apache-2.0"
        identity |= _describe_sam(mask_choice)
    official = _published(identity["family"]).issuperset(
        sha256 for name, sha256 in hashes.items() if not name.endswith(".json")
    )
    return identity | {
        "weights": hashes,
        "provenance": "official" if official else "given" if given else "seen",
        "licence": licence if official or (model in PRESETS and not given) else None,
        "size_bytes": sum(each.stat().st_size for each in files),
    }


def load_segmenters(
    model: str | None,
    checkpoint: Path | None = None,
    device: str = "auto",
    precision: str = "float32",
    model_folder: Path | None = None,
    mask_choice: str = "model",
    preprocessing: str = "common",
) -> "list[Segmenter]":
    """Load a model onto every device of a kind; a baseline always runs on the CPU.

    model: see `presets.parse_model`; None with a `model_folder` of a family that config.json names.
    checkpoint: a file of weights to use instead of the published ones.
    model_folder: a folder with config.json and weights, see `model_folder`, to use instead.
    device, precision, mask_choice: of `base.DEVICES`, `base.PRECISIONS` and `base.MASK_CHOICES`.
    preprocessing: see `families.describe`. A baseline does not use the last five.

    Raises `InputError` as `identify` does, and when there is no such device, or the weights do not
    fit the model or the memory.
    """
    from sam_lungs.segmenters.devices import choose_devices

    identity = identify(model, checkpoint, model_folder, mask_choice, preprocessing)
    if model in BASELINES:
        from sam_lungs.segmenters import baselines

        return [baselines.BASELINES[model](identity)]
    devices = choose_devices(device)
    path = weights_path(model, checkpoint, model_folder)
    if identity["family"] == "segment-anything":
        from sam_lungs.segmenters.sam import SamSegmenter as Segmenter

        with waiting(f"loading {model}"):
            loaded = checkpoints.load_sam(model, path)
    else:
        hub.require("transformers", identity["model"])
        from sam_lungs.segmenters.hf import TransformersSegmenter as Segmenter

        with waiting(f"loading {identity['model']}"):
            if checkpoint or not path.is_dir():
                loaded = load_original(model, preset_of(model).config, path)
            else:
                loaded = load_folder(path)
    return _on_each(Segmenter, loaded, devices, precision, identity, mask_choice)


def load_untrained(
    model: str, device: str, precision: str, mask_choice: str, preprocessing: str
) -> "list[Segmenter] | None":
    """Load a model with random weights, to measure its time; None when it has no known shape.

    Arguments as for `load_segmenters`; not for a baseline.
    """
    from sam_lungs.segmenters.devices import choose_devices

    preset = preset_of(model)
    if not preset:
        from sam_lungs.segmenters.sam import SamSegmenter as Segmenter

        loaded, described = checkpoints.untrained_sam(model), _describe_sam(mask_choice)
    elif preset.config:
        from sam_lungs.segmenters.hf import TransformersSegmenter as Segmenter

        loaded = untrained(preset.config)
        described = describe(preset.family, mask_choice, preprocessing)
    else:
        return None
    identity = {"model": model, "weights": {}, **described}
    return _on_each(Segmenter, loaded, choose_devices(device), precision, identity, mask_choice)


def _describe_sam(mask_choice: str) -> dict:
    """Return what `families.describe` does, for the family segment-anything."""
    return {
        "family": "segment-anything",
        "preprocessing": PREPROCESSING,
        "mask_choice": CHOICES["token0" if mask_choice == "model" else mask_choice],
        "prompt_kinds": list(PROMPT_KINDS),
        "packages": versions_of(PACKAGES),
    }


def _on_each(
    segmenter_class: "type[Segmenter]",
    loaded: "torch.nn.Module",
    devices: "list[torch.device]",
    *arguments: object,
) -> "list[Segmenter]":
    """Return a segmenter for each device, with its own copy of the model."""
    copies = [loaded, *(copy.deepcopy(loaded) for _ in devices[1:])]
    return [
        segmenter_class(one, each, *arguments) for one, each in zip(copies, devices, strict=True)
    ]


def _published(family: str) -> set[str]:
    """Return the SHA-256 of the weights of a family that are known from their authors."""
    if family == "segment-anything":
        return {each.sha256 for each in checkpoints.CHECKPOINTS.values()}
    presets = [each for each in PRESETS.values() if each.family == family]
    originals = {each.original.sha256 for each in presets if each.original}
    return originals.union(*(each.sha256.values() for each in presets))


def _check(model: str | None, checkpoint: Path | None, model_folder: Path | None) -> None:
    """Raise `InputError` when a file or a folder is given that the model does not take."""
    if checkpoint and model_folder:
        raise InputError("--checkpoint and --model_folder both name weights; leave one of them out")
    if model in BASELINES and (checkpoint or model_folder):
        raise InputError(
            f"{checkpoint or model_folder}: --model {model} has no weights; leave out"
            f" --{'checkpoint' if checkpoint else 'model_folder'}"
        )
    if model_folder:
        files_of(model_folder)
        family = family_of_folder(model_folder)
        preset = model and preset_of(model)
        # MedSAM has the config.json of SAM.
        expected = preset and ("sam" if preset.family == "medsam" else preset.family)
        if model and family != expected:
            raise InputError(
                f"{model_folder}: holds a model of the family {family}, which does not fit --model"
                f" {model}; leave --model out"
            )
    if checkpoint and checkpoints.published_file(model) is None:
        raise InputError(
            f"{checkpoint}: --model {model} does not take one file of weights; give a folder with"
            " config.json and weights with --model_folder"
        )


def _check_hashes(folder: Path, hashes: dict[str, str], expected: dict[str, str]) -> None:
    """Raise `InputError` when a file is not as it was fetched, or not the published one."""
    for name, sha256 in hashes.items():
        if sha256 != expected.get(name):
            raise InputError(
                f"{folder / name}: has changed since it was fetched (SHA-256 {sha256} instead of"
                f" {expected.get(name)}); delete {folder} to fetch it again, or use it as"
                " it is with --model_folder"
            )
