"""Time and memory of the promptable models of transformers, per slice.

    python -m benchmarks.models --models sam2.1_hiera_tiny sam2.1_hiera_large
    python -m benchmarks.models --device cuda --precision float32 bfloat16 --json models.json

The models have their published sizes and seeded random weights, which do not change the times. The
slices are phantoms of 512 x 512. On a CPU the memory is that of the whole process, so measure the
memory of one model per command.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.encoder import read_slices
from benchmarks.machine import median, report, seconds_of
from sam_lungs.prompts.protocols import Prompts
from sam_lungs.segmenters.base import DEVICES, PRECISIONS
from sam_lungs.segmenters.devices import choose_devices
from sam_lungs.segmenters.families import FAMILIES, describe
from sam_lungs.segmenters.hf import TransformersSegmenter
from sam_lungs.utils.cli import option, parse_options, run_script

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def _vit(width: int, depth: int, heads: int, **heads_of_model: dict) -> dict:
    """The ViT of SAM; its global attention is in the last block of each quarter."""
    vision = {
        "hidden_size": width,
        "num_hidden_layers": depth,
        "num_attention_heads": heads,
        "mlp_dim": 4 * width,
        "global_attn_indexes": [depth // 4 * quarter - 1 for quarter in range(1, 5)],
    }
    return {"vision_config": vision, **heads_of_model}


def _hq(width: int, depth: int, heads: int) -> dict:
    return _vit(width, depth, heads, mask_decoder_config={"vit_dim": width})


def _hiera(**backbone: object) -> dict:
    """Options that are not those of the tiny SAM 2.1, from sam2/configs of the authors' code."""
    vision = {"backbone_config": {"model_type": "sam2_hiera_det_model", **backbone}}
    if "embed_dim_per_stage" in backbone:
        vision["backbone_channel_list"] = backbone["embed_dim_per_stage"][::-1]
    return {"vision_config": vision}


# Name -> family and configuration; None where transformers' default is the published one.
MODELS = {
    "slimsam_77": ("sam", _vit(168, 12, 12)),
    "sam_vit_b": ("sam", _vit(768, 12, 12)),
    "sam_vit_l": ("sam", _vit(1024, 24, 16)),
    "sam_vit_h": ("sam", _vit(1280, 32, 16)),
    "medsam": ("medsam", _vit(768, 12, 12)),
    "sam_hq_vit_b": ("sam_hq", _hq(768, 12, 12)),
    "sam_hq_vit_l": ("sam_hq", _hq(1024, 24, 16)),
    "sam_hq_vit_h": ("sam_hq", _hq(1280, 32, 16)),
    "sam2.1_hiera_tiny": ("sam2", _hiera()),
    "sam2.1_hiera_small": (
        "sam2",
        _hiera(blocks_per_stage=[1, 2, 11, 2], global_attention_blocks=[7, 10, 13]),
    ),
    "sam2.1_hiera_base_plus": (
        "sam2",
        _hiera(
            hidden_size=112,
            num_attention_heads=2,
            blocks_per_stage=[2, 3, 16, 3],
            embed_dim_per_stage=[112, 224, 448, 896],
            num_attention_heads_per_stage=[2, 4, 8, 16],
            global_attention_blocks=[12, 16, 20],
            window_positional_embedding_background_size=[14, 14],
        ),
    ),
    "sam2.1_hiera_large": (
        "sam2",
        _hiera(
            hidden_size=144,
            num_attention_heads=2,
            blocks_per_stage=[2, 6, 36, 4],
            embed_dim_per_stage=[144, 288, 576, 1152],
            num_attention_heads_per_stage=[2, 4, 8, 16],
            window_size_per_stage=[8, 4, 16, 8],
            global_attention_blocks=[23, 33, 43],
        ),
    ),
    "edgetam": ("edgetam", {}),
    "sam3": ("sam3", {}),
}


@dataclass
class Options:
    """Command-line options."""

    models: Sequence[str] = option(
        "models", tuple(MODELS), group="model", choices=list(MODELS), shown_default="all"
    )
    device: str = option("where to compute", "auto", group="model", choices=DEVICES)
    precision: Sequence[str] = option(
        "of the image encoder",
        ("float32",),
        group="model",
        choices=PRECISIONS,
        shown_default="float32",
    )
    batch_size: int = option("slices encoded at once", 1, group="model")
    rounds: int = option("measurements of each model", 3, group="output")
    json: Path | None = option("also write the table to this file", None, group="output")


def main() -> None:
    options = parse_options(
        Options,
        "Measure time and memory of promptable models per slice.",
        "python -m benchmarks.models --models sam2.1_hiera_tiny sam2.1_hiera_large",
        prog="python -m benchmarks.models",
    )
    device = choose_devices(options.device)[0]
    slices = list(read_slices(None, None, options.batch_size))
    rows = []
    for name in options.models:
        model = build(name, device)
        for precision in options.precision:
            identity = {"model": name, **describe(MODELS[name][0])}
            segmenter = TransformersSegmenter(model, device, precision, identity)
            measured = measure(segmenter, slices, options.rounds)
            rows.append({"model": name, "encoder": precision, **measured})
            print(rows[-1], file=sys.stderr)
        del model, segmenter  # before the next model is built
    report(rows, device, options.json)


def build(name: str, device: torch.device) -> PreTrainedModel:
    """Return a model of its published size with seeded random weights, on the device."""
    import transformers

    family, config = MODELS[name]
    model_class = getattr(transformers, FAMILIES[family].model_class)
    if family == "edgetam":
        # The default of transformers 5.24 has a misspelt name and cannot run.
        layers = {"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]}
        backbone = transformers.TimmWrapperConfig(architecture="repvit_m1", model_args=layers)
        config = {"vision_config": {"backbone_config": backbone}}
    torch.manual_seed(0)
    with torch.device(device):
        model = model_class(model_class.config_class(**config))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:  # SAM's are 1e-10, which is slow on some processors
                parameter.normal_(std=0.02)
    return model.eval().requires_grad_(False)


def measure(
    segmenter: TransformersSegmenter, slices: Sequence[tuple[np.ndarray, Prompts]], rounds: int
) -> dict[str, float]:
    """Return times per slice, and the memory that is not weights."""
    device = segmenter.device
    images = [image_rgb for image_rgb, _ in slices]
    prompts = [[accepted(prompts, segmenter.prompt_kinds)] for _, prompts in slices]
    size_rc = images[0].shape[:2]
    before = memory_bytes(device, reset=True)
    pictures = [segmenter.prepare(image) for image in images]
    embeddings = segmenter.encode(pictures)
    segmenter.decode(embeddings, size_rc, prompts)
    peak = memory_bytes(device)

    def ms_per_slice(function: Callable[[], object]) -> float:
        seconds = [seconds_of(function, device) for _ in range(rounds)]
        return median(seconds) / len(slices) * 1e3

    weights = segmenter._model.parameters()
    return {
        "million weights": sum(weight.numel() for weight in weights) / 1e6,
        "prepare ms": ms_per_slice(lambda: [segmenter.prepare(image) for image in images]),
        "encode ms": ms_per_slice(lambda: segmenter.encode(pictures)),
        "decode ms": ms_per_slice(lambda: segmenter.decode(embeddings, size_rc, prompts)),
        "embedding MB": sum(tensor[0].nbytes for tensor in embeddings) / 1e6,
        "GB without the weights": (peak - before) / 1e9,
    }


def accepted(prompts: Prompts, kinds: frozenset[str]) -> Prompts:
    """Return the prompts without points, if a model does not accept points."""
    if "points" in kinds:
        return prompts
    return Prompts(prompts.points_rc[:0], prompts.labels[:0], prompts.box_rc)


def memory_bytes(device: torch.device, reset: bool = False) -> float:
    """Return the peak memory on a GPU, or of this process, since the last reset.

    reset: start anew, and return the memory in use. NaN on a system without /proc.
    """
    if device.type == "cuda":
        if reset:
            torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if not status.exists():
        return float("nan")
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    return 1024 * int(re.search(r"VmHWM:\s+(\d+) kB", status.read_text())[1])


if __name__ == "__main__":
    run_script(main)
