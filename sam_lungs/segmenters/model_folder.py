"""Models of `transformers` in a folder: config.json and float32 weights as safetensors.

No code in a folder is run, and no parameter is left at a random value.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sam_lungs.segmenters.checkpoints import check_finite, loading, read_weights
from sam_lungs.segmenters.families import FAMILIES, family_of
from sam_lungs.segmenters.original_names import rename_sam, rename_sam2
from sam_lungs.utils.errors import InputError, is_out_of_memory
from sam_lungs.utils.files import check_regular

if TYPE_CHECKING:  # importing torch takes seconds
    import torch
    from transformers import PreTrainedModel

INDEX = "model.safetensors.index.json"
MAX_JSON_BYTES = 10_000_000
# Keys of a config.json that load code or change how the weights are read.
REFUSED_KEYS = {
    *("auto_map", "quantization_config", "fusion_config", "kernel_config", "transformers_weights"),
    *("attn_implementation", "_attn_implementation", "_attn_implementation_internal"),
}


def files_of(folder: Path) -> list[Path]:
    """Return the files of a folder that are read: config.json, an index and the weights.

    Raises `InputError` when one of them is missing, or there are only pickled weights.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give a folder with config.json and weights")
    config, weights, index = (folder / n for n in ("config.json", "model.safetensors", INDEX))
    files = [config, weights]
    if index.exists() and not weights.exists():
        shards = _read_json(index).get("weight_map")
        names = set(shards.values()) if isinstance(shards, dict) else set()
        if not names or not all(isinstance(n, str) and Path(n).name == n for n in names):
            raise InputError(f"{index}: does not name the files of weights; download it again")
        files = [config, index, *(folder / name for name in sorted(names))]
    for path in files:
        if path.exists():
            continue
        if path == weights and any(folder.glob("*.bin")):
            raise InputError(
                f"{folder}: holds pickled weights, which may run code; use a folder with"
                " model.safetensors, as save_pretrained of transformers writes it"
            )
        raise InputError(f"{path}: no such file; complete the folder, or download it again")
    return files


def family_of_folder(folder: Path) -> str:
    """Return the family of the model in a folder, of `families.FAMILIES`.

    Raises `InputError` when config.json cannot be used.
    """
    return family_of(_read_config(folder / "config.json")["model_type"])


def load_folder(folder: Path) -> "PreTrainedModel":
    """Return the model in a folder, for images, in float32 on the CPU and without gradients.

    Raises `InputError` when the files cannot be read, or the weights are not float32, not exactly
    the parameters of the model or not finite, and when there is too little memory.
    """
    import torch

    config_path, *files = files_of(folder)
    config = _read_config(config_path)
    weights = {}
    for path in files:
        if path.suffix == ".safetensors":
            with loading(path):
                weights |= _read_safetensors(path)
    types = {each.dtype for each in weights.values() if each.is_floating_point()}
    if other := types - {torch.float32}:
        raise InputError(
            f"{folder}: holds {str(other.pop()).removeprefix('torch.')} weights, not float32; load"
            " it in transformers and write it with model.float().save_pretrained(FOLDER)"
        )
    return _build(config, weights, folder)


def load_original(model: str, config: dict, path: Path) -> "PreTrainedModel":
    """Return a model with the weights of a file, as `load_folder` does.

    path: a PyTorch file or safetensors, with the parameter names of the authors' code or those of
        `transformers`; see `checkpoints.read_weights`.
    model: for messages. config: the content of a config.json.
    """
    import torch

    rename, marks = {
        "sam": (rename_sam, ("image_encoder.", "vision_encoder.")),
        "sam2": (rename_sam2, ("image_encoder.trunk.", "vision_encoder.backbone.")),
    }[config["model_type"]]
    with loading(path):
        weights, held = read_weights(path)
        if not any(key.startswith(marks) for key in weights):
            raise InputError(
                f"{path}: holds no {model} weights, only {held}; write those of the model alone, as"
                " torch.save(model.state_dict(), FILE) does"
            )
        if any(key.startswith(marks[0]) for key in weights):
            weights = rename(weights)
        # Copies, because the tensors of the file are memory-mapped.
        weights = {key: each.to(torch.float32, copy=True) for key, each in weights.items()}
    return _build(config, weights, path)


def untrained(config: dict) -> "PreTrainedModel":
    """Return the model of a config.json as `load_folder` does, with random weights of one seed."""
    import torch
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = config["model_type"]
    model_class = getattr(transformers, FAMILIES[family_of(model_type)].model_class)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = model_class(CONFIG_MAPPING[model_type].from_dict(config))
    return model.eval().requires_grad_(False)


def _read_json(path: Path) -> dict:
    try:
        check_regular(path)
        if path.stat().st_size > MAX_JSON_BYTES:
            raise ValueError("too large")
        content = json.loads(path.read_bytes())
        if not isinstance(content, dict):
            raise ValueError("not an object")
    except (OSError, ValueError, RecursionError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise InputError(f"{path}: cannot be read ({reason:.80}); download it again") from error
    return content


def _read_config(path: Path) -> dict:
    config = _read_json(path)
    if refused := sorted(REFUSED_KEYS & _keys(config)):
        raise InputError(
            f"{path}: {refused[0]} would load other code or other numbers than the weights; use a"
            " model that is a class of transformers, without it"
        )
    model_type = config.get("model_type")
    if not isinstance(model_type, str) or family_of(model_type) is None:
        types = ", ".join(name for each in FAMILIES.values() for name in each.model_types)
        raise InputError(f"{path}: model_type is {model_type!r:.40}; the types are {types}")
    return config


def _keys(content: object) -> set[str]:
    """Return the keys of nested objects."""
    if isinstance(content, dict):
        return set(content).union(*map(_keys, content.values()))
    return set().union(*map(_keys, content)) if isinstance(content, list) else set()


def _read_safetensors(path: Path) -> "dict[str, torch.Tensor]":
    from safetensors.torch import load_file

    check_regular(path)
    # Copies, because the tensors of the file are memory-mapped.
    return {key: each.clone() for key, each in load_file(path).items()}


def _build(config: dict, weights: "dict[str, torch.Tensor]", path: Path) -> "PreTrainedModel":
    """Build the model of a config.json with exactly these weights; path: for messages."""
    import torch
    import transformers
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    model_type = config["model_type"]
    model_class = getattr(transformers, FAMILIES[family_of(model_type)].model_class)
    with loading(path), _quiet_transformers():
        try:
            model, found = model_class.from_pretrained(
                None,
                config=CONFIG_MAPPING[model_type].from_dict(config),
                state_dict=weights,
                dtype=torch.float32,
                attn_implementation="sdpa",
                use_safetensors=True,
                trust_remote_code=False,
                local_files_only=True,
                ignore_mismatched_sizes=True,  # reported below
                output_loading_info=True,
            )
        except Exception as error:  # a wrong configuration raises almost any type
            if is_out_of_memory(error):
                raise
            remedy = "use its published config.json, or another version of transformers"
            if isinstance(error, ImportError):
                remedy = "install what is missing with: pip install '.[models]'"
            raise InputError(
                f"{path}: transformers {transformers.__version__} cannot build its"
                f" {model_class.__name__} ({' '.join(str(error).split()):.100}); {remedy}"
            ) from error
    wrong = sorted(
        {*found["missing_keys"], *found["unexpected_keys"]}
        | {key for key, *_ in found["mismatched_keys"]}
    )
    if wrong or found["error_msgs"]:
        raise InputError(
            f"{path}: does not fit {model_class.__name__}: {len(wrong)} parameters are missing,"
            f" unexpected or of another shape, such as {(wrong or found['error_msgs'])[0]!r:.80};"
            " use the weights that belong to this model"
        )
    check_finite(weights, path)
    return model.eval().requires_grad_(False)


@contextmanager
def _quiet_transformers() -> Iterator[None]:
    """Turn off the tables and progress bars of `transformers`: errors are reported in one line."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
