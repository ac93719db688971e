"""The segmenters by name. Importing this module does not import torch."""

import copy
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from sam_lungs.segmenters import checkpoints
from sam_lungs.utils.files import sha256_of
from sam_lungs.utils.provenance import versions_of

if TYPE_CHECKING:
    from sam_lungs.segmenters.base import Segmenter

# For the family segment-anything. Change the text when the same voxels and weights give other
# embeddings. PACKAGES compute the embeddings and masks.
PREPROCESSING = "window, slice's own range to uint8, longest side resized by PIL, zeros after norm"
PACKAGES = ("torch", "torchvision", "segment-anything", "numpy", "pillow")


def weights_path(model: str, checkpoint: Path | None) -> Path:
    """Return the path of the weights, which may not exist yet.

    model: one of `base.MODELS`. checkpoint: weights to use instead of the official ones.
    """
    official = checkpoints.CHECKPOINTS[model].file_name
    return checkpoint or checkpoints.CHECKPOINTS_FOLDER / official


@cache
def identify(model: str, checkpoint: Path | None) -> dict:
    """Return the identity of a model, see `base.Segmenter`; download official weights if missing.

    Cached, because hashing gigabytes takes seconds.

    Raises `InputError` when the weights cannot be downloaded or read, or are not the official ones.
    """
    path = checkpoint or checkpoints.fetch(model)  # `fetch` verifies the hash
    sha256 = sha256_of(path) if checkpoint else checkpoints.CHECKPOINTS[model].sha256
    return {
        "model": model,
        "family": "segment-anything",
        "weights": {path.name: sha256},
        "preprocessing": PREPROCESSING,
        "packages": versions_of(PACKAGES),
    }


def load_segmenters(
    model: str,
    checkpoint: Path | None = None,
    device: str = "auto",
    precision: str = "float32",
) -> "list[Segmenter]":
    """Load a model onto every device of a kind.

    device, precision: of `base.DEVICES` and `base.PRECISIONS`.

    Raises `InputError` as `identify` does, and when there is no such device, or the weights do not
    fit the model or the memory.
    """
    from sam_lungs.segmenters.devices import choose_devices
    from sam_lungs.segmenters.sam import SamSegmenter

    devices = choose_devices(device)
    identity = identify(model, checkpoint)
    sam = checkpoints.load_sam(model, weights_path(model, checkpoint))
    copies = [sam, *(copy.deepcopy(sam) for _ in devices[1:])]
    return [
        SamSegmenter(one, each, precision, identity)
        for one, each in zip(copies, devices, strict=True)
    ]
