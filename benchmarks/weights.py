"""Weights for benchmarks: a file, or untrained ones from a fixed seed, as heavy as any."""

from pathlib import Path

import torch
from segment_anything import sam_model_registry
from segment_anything.modeling import Sam

from sam_lungs.segmenters.checkpoints import fetch, load_sam


def load(model: str, checkpoint: Path | None) -> Sam:
    """Return the model with the weights of a file; without one, `compact` or a seeded model."""
    if checkpoint:
        return load_sam(model, checkpoint)
    if model == "compact":
        return load_sam(model, fetch(model))
    torch.manual_seed(0)
    sam = sam_model_registry[model]()
    with torch.no_grad():
        for name, parameter in sam.image_encoder.named_parameters():
            if "pos" in name:  # zeros in an untrained model, which would hide mistakes
                parameter.normal_(std=0.05)
    return sam.eval().requires_grad_(False)
