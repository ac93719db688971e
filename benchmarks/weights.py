"""Weights for benchmarks: from a file, or untrained with a fixed seed, which take the same time."""

from pathlib import Path

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from sam_lungs.segmenters.checkpoints import fetch, load_sam


def load(model: str, checkpoint: Path | None) -> Sam:
    """Return a model with the weights of a file; without one, `compact` or an untrained model."""
    if checkpoint:
        return load_sam(model, checkpoint)
    if model == "compact":
        return load_sam(model, fetch(model))
    torch.manual_seed(0)
    sam = sam_model_registry[model]()
    with torch.no_grad():
        for name, parameter in sam.image_encoder.named_parameters():
            if "pos" in name:  # zeros in an untrained model, which would hide errors
                parameter.normal_(std=0.05)
    return sam.eval().requires_grad_(False)
