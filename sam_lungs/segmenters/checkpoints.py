"""Weights in one file: download, verify and read them, and load those of segment-anything.

python -m sam_lungs.segmenters.checkpoints vit_b sam2.1_hiera_tiny
"""

import os
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam_lungs.segmenters import hub
from sam_lungs.segmenters.base import BASELINES
from sam_lungs.segmenters.presets import WITH_WEIGHTS, Original, parse_model, preset_of
from sam_lungs.utils.cli import option, parse_options, run_script
from sam_lungs.utils.download import download, naming_others
from sam_lungs.utils.errors import InputError, is_out_of_memory
from sam_lungs.utils.files import check_regular, sha256_of

if TYPE_CHECKING:  # importing torch takes seconds
    import torch
    from segment_anything.modeling import Sam

CHECKPOINTS_FOLDER = Path(__file__).resolve().parents[2] / "checkpoints"


@dataclass(frozen=True)
class Checkpoint(Original):
    """A file of SAM weights.

    encoder_width: channels of the image encoder's tokens, which differ between the architectures.
    """

    encoder_width: int


# From https://github.com/facebookresearch/segment-anything#model-checkpoints.
URL = "https://dl.fbaipublicfiles.com/segment_anything"
CHECKPOINTS = {
    "vit_b": Checkpoint(
        url=URL,
        file_name="sam_vit_b_01ec64.pth",
        size_bytes=375_042_383,
        sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
        encoder_width=768,
    ),
    "vit_l": Checkpoint(
        url=URL,
        file_name="sam_vit_l_0b3195.pth",
        size_bytes=1_249_524_607,
        sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
        encoder_width=1024,
    ),
    "vit_h": Checkpoint(
        url=URL,
        file_name="sam_vit_h_4b8939.pth",
        size_bytes=2_564_550_879,
        sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
        encoder_width=1280,
    ),
    # Part of this repository, trained on phantoms; see checkpoints/sam_compact.md.
    "compact": Checkpoint(
        url="",
        file_name="sam_compact.pth",
        size_bytes=2_292_459,
        sha256="552aefb42baeacd5926f5b08e6cac52cf3c3aa72daf50d3b16711868886d9524",
        encoder_width=96,
    ),
}
MAX_FILE_BYTES = 8_000_000_000  # of any weights; ViT-H with Adam's state has 7.7 GB
# A training file may hold the weights under one of these keys, and their names after a prefix.
LEVELS = ("model", "state_dict", "model_state")
PREFIXES = ("module.", "sam.", "model.")


def published_file(name: str) -> Original | None:
    """Return the weights file that the authors of a model publish; None for a model of the hub.

    Raises `InputError` for a baseline.
    """
    if name in BASELINES:
        raise InputError(f"{name}: has no weights to download; leave it out")
    preset = preset_of(name)
    return preset.original if preset else CHECKPOINTS[name]


def fetch(name: str, folder: Path = CHECKPOINTS_FOLDER, mirror: str | None = None) -> Path:
    """Return the path of a model's weights in `folder`; download them first if they are missing.

    A file, or for a model of the hub a folder.

    name: see `presets.parse_model`. mirror: as `utils.download.download` takes it.

    Raises `InputError` when the download fails, or the file cannot be read or has another SHA-256.
    """
    checkpoint = published_file(name)
    if checkpoint is None:
        if mirror is not None:
            raise InputError(
                f"{name}: comes from the hub, and --mirror is for files of other servers; set the"
                " environment variable HF_ENDPOINT to the URL of the hub's mirror"
            )
        return hub.fetch(name, preset_of(name), folder)
    path = folder / checkpoint.file_name
    remedy = "delete it to download it again"
    if name == "compact":
        remedy = f"restore it with: git checkout -- {CHECKPOINTS_FOLDER.name}/{path.name}"
    if not os.path.exists(path):
        if name == "compact":
            raise InputError(f"{path}: no such file; {remedy}")
        script = f"scripts/download_model_checkpoints.sh {name}"
        url = f"{checkpoint.url}/{path.name}"
        download(url, path, checkpoint.sha256, checkpoint.size_bytes, mirror, script=script)
    sha256 = sha256_of(path)
    if sha256 != checkpoint.sha256:
        raise InputError(
            f"{path}: not the official {name} checkpoint (SHA-256 {sha256}); {remedy}, or use it as"
            " it is with --checkpoint"
        )
    return path


def missing_source(name: str, folder: Path = CHECKPOINTS_FOLDER) -> str | None:
    """Return where a model's weights are published; None if they are in `folder`."""
    checkpoint, preset = published_file(name), preset_of(name)
    if checkpoint is not None:
        path, url = folder / checkpoint.file_name, f"{checkpoint.url}/{checkpoint.file_name}"
    else:
        path = hub.folder_of(name, preset, folder)
        url = f"https://huggingface.co/{preset.repository}"
    # The compact model comes with the code.
    return None if path.exists() or name == "compact" else url


def load_sam(name: str, path: Path) -> "Sam":
    """Return SAM of the architecture `name` with the weights of a file.

    path: with segment-anything's parameter names; see `read_weights`.

    The model is in float32 on the CPU, in evaluation mode, and without gradients.

    Raises `InputError` when the file cannot be read, is damaged, or does not hold exactly the
    parameters of this architecture, or NaN or infinity, and when there is too little memory.
    """
    import torch

    with loading(path):
        weights, content = read_weights(path)
        shapes = {key: tuple(weight.shape) for key, weight in weights.items()}
        width = shapes.get("image_encoder.patch_embed.proj.weight", ())[:1]
        held = [other for other, each in CHECKPOINTS.items() if width == (each.encoder_width,)]
        if not held:
            raise InputError(
                f"{path}: holds no SAM weights, only {content}; write those of the model, with"
                " segment-anything's parameter names, as torch.save(sam.state_dict(), FILE) does"
            )
        if held != [name]:
            raise InputError(f"{path}: holds {held[0]} weights, not {name}; use --model {held[0]}")
        sam = _empty_sam(name)
        expected = {key: tuple(weight.shape) for key, weight in sam.state_dict().items()}
        wrong = sorted({key for key, _ in shapes.items() ^ expected.items()})
        if wrong:
            raise InputError(
                f"{path}: does not fit {name}: {len(wrong)} parameters are missing, unexpected or"
                f" of another shape, such as {wrong[0]!r:.80}; use a checkpoint of the original SAM"
            )
        # Copies, because the tensors of the file are memory-mapped.
        weights = {key: each.to(torch.float32, copy=True) for key, each in weights.items()}
        check_finite(weights, path)
        sam.load_state_dict(weights, assign=True)
    return sam.eval().requires_grad_(False)


def untrained_sam(name: str) -> "Sam":
    """Return SAM of the architecture `name` as `load_sam` does, with random weights of one seed."""
    import torch

    generator = torch.Generator().manual_seed(0)
    sam = _empty_sam(name)
    weights = {
        key: torch.empty(weight.shape).uniform_(-0.02, 0.02, generator=generator)
        for key, weight in sam.state_dict().items()
    }
    sam.load_state_dict(weights, assign=True)
    return sam.eval().requires_grad_(False)


def _empty_sam(name: str) -> "Sam":
    """Return SAM of an architecture without weights, which take time and memory."""
    import torch
    from segment_anything import sam_model_registry

    from sam_lungs.segmenters.sam_compact import build_compact

    with torch.device("meta"):
        return build_compact() if name == "compact" else sam_model_registry[name]()


def read_weights(path: Path) -> "tuple[dict[str, torch.Tensor], str]":
    """Return the dense floating-point tensors of a file by name, and a list of what it holds.

    path: a PyTorch file (1.6 or newer) or, with the suffix `.safetensors`, a safetensors file. No
        code in the file is run.

    The tensors are memory-mapped. If the file has one of `LEVELS`, they are those under it. If all
    their names begin with one of `PREFIXES`, it is removed.

    Raises `InputError` when the file is larger than any model. To be called inside `loading`.
    """
    import torch
    from safetensors.torch import load_file

    check_regular(path)
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"{path}: is larger than any SAM; give --checkpoint a file of SAM weights")
    if path.suffix == ".safetensors":
        content = load_file(path)
    else:
        with zipfile.ZipFile(path) as archive:
            # PyTorch does not compress, and does not verify the checksums.
            compressed = any(entry.compress_type for entry in archive.infolist())
            if compressed or archive.testzip():
                raise zipfile.BadZipFile
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if not isinstance(content, dict):
        return {}, f"a {type(content).__name__}"
    # An OrderedDict from a file may have attributes that override its methods.
    items = dict(dict.items(content))
    levels = [level for level in LEVELS if isinstance(items.get(level), dict)]
    parent = ""
    if len(levels) == 1:
        parent = f"{levels[0]}."
        items = dict(dict.items(items[levels[0]]))
    weights = {
        str(key): each
        for key, each in items.items()
        if isinstance(each, torch.Tensor)
        and each.is_floating_point()
        and (each.layout, each.device.type) == (torch.strided, "cpu")
    }
    for prefix in PREFIXES:
        if weights and all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): each for key, each in weights.items()}
            break
    held = ", ".join(f"{parent}{key}"[:40] for key in list(items)[:5]) + ", ..." * (len(items) > 5)
    return weights, repr(held)[1:-1] or "an empty dictionary"


def check_finite(weights: "dict[str, torch.Tensor]", path: Path) -> None:
    """Raise `InputError` when a floating-point tensor has NaN or infinity."""
    from sam_lungs.segmenters.finite import all_finite

    floating = {name: each for name, each in weights.items() if each.is_floating_point()}
    if wrong := [name for name, each in floating.items() if not all_finite([each])]:
        raise InputError(
            f"{path}: {len(wrong)} of {len(weights)} parameters have NaN or infinity, such as"
            f" {wrong[0]!r:.80}; they are damaged, or their training failed: use other weights"
        )


@contextmanager
def loading(path: Path) -> Iterator[None]:
    """Turn every error of loading a file into a one-line `InputError`."""
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # a broken file raises almost any type
        if is_out_of_memory(error):
            message = (
                "too little memory for the weights; close other programs, or use a smaller model or"
                " a larger machine"
            )
        elif isinstance(error, OSError) and error.filename:
            message = f"cannot be read ({error.strerror}); check the path"
        else:
            message = (
                "not a complete file of weights; download it again, or save it with PyTorch 1.6 or"
                " newer, or as .safetensors"
            )
        raise InputError(f"{path}: {message}") from error


@dataclass(frozen=True)
class DownloadOptions:
    names: Sequence[str] = option(
        f"models to download: {', '.join(WITH_WEIGHTS)}, or hub:OWNER/NAME@REVISION",
        ("vit_l",),
        group="downloads",
        parse=parse_model,
        positional=True,
        metavar="MODEL",
        shown_default="vit_l",
    )
    mirror: str | None = option(
        "URL of a folder on another server, http or https, with the official file names; hashes are"
        " checked in any case",
        None,
        group="downloads",
        metavar="URL",
    )


def main() -> None:
    options = parse_options(
        DownloadOptions,
        f"Download the weights of models into {CHECKPOINTS_FOLDER} and verify them.",
        "python -m sam_lungs.segmenters.checkpoints vit_b sam2.1_hiera_tiny",
        prog="python -m sam_lungs.segmenters.checkpoints",
    )
    for name in options.names:
        others = [missing_source(each) for each in options.names if each != name]
        with naming_others(filter(None, others)):
            print(f"{name}: {fetch(name, mirror=options.mirror)}")


if __name__ == "__main__":
    run_script(main)
