"""Parameter names of the authors' code -> those of `transformers`.

SAM, MedSAM and SlimSAM: https://github.com/facebookresearch/segment-anything.
SAM 2 and 2.1: https://github.com/facebookresearch/sam2.
"""

import re
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing torch takes seconds
    import torch

# Patterns and replacements, applied to every name in this order.
HEADS = r"(iou_prediction_head|pred_obj_score_head|output_hypernetworks_mlps\.\d+)\.layers\."
BOTH = (
    (rf"{HEADS}0\.", r"\1.proj_in."),
    (rf"{HEADS}1\.", r"\1.layers.0."),
    (rf"{HEADS}2\.", r"\1.proj_out."),
    (r"\.output_upscaling\.0\.", ".upscale_conv1."),
    (r"\.output_upscaling\.1\.", ".upscale_layer_norm."),
    (r"\.output_upscaling\.3\.", ".upscale_conv2."),
    (r"\.mask_downscaling\.0\.", ".mask_embed.conv1."),
    (r"\.mask_downscaling\.1\.", ".mask_embed.layer_norm1."),
    (r"\.mask_downscaling\.3\.", ".mask_embed.conv2."),
    (r"\.mask_downscaling\.4\.", ".mask_embed.layer_norm2."),
    (r"\.mask_downscaling\.6\.", ".mask_embed.conv3."),
    (r"\.pe_layer\.positional_encoding_gaussian_matrix$", ".shared_embedding.positional_embedding"),
    (r"\.norm(\d|_final_attn)\.", r".layer_norm\1."),
    (r"\.patch_embed\.proj\.", ".patch_embed.projection."),
)
SAM = (
    *BOTH,
    (r"\.point_embeddings\.", ".point_embed."),
    (r"^image_encoder\.blocks\.", "vision_encoder.layers."),
    (r"^image_encoder\.neck\.0\.", "vision_encoder.neck.conv1."),
    (r"^image_encoder\.neck\.1\.", "vision_encoder.neck.layer_norm1."),
    (r"^image_encoder\.neck\.2\.", "vision_encoder.neck.conv2."),
    (r"^image_encoder\.neck\.3\.", "vision_encoder.neck.layer_norm2."),
    (r"^image_encoder\.", "vision_encoder."),
)
SAM2 = (
    *BOTH,
    (r"^image_encoder\.trunk\.", "vision_encoder.backbone."),
    (r"^image_encoder\.neck\.convs\.(\d+)\.conv\.", r"vision_encoder.neck.convs.\1."),
    (r"^sam_prompt_encoder\.", "prompt_encoder."),
    (r"^sam_mask_decoder\.", "mask_decoder."),
    (r"\.mlp\.layers\.0\.", ".mlp.proj_in."),
    (r"\.mlp\.layers\.1\.", ".mlp.proj_out."),
    (r"\.out_proj\.", ".o_proj."),
    (r"^no_mem_embed$", "no_memory_embedding"),
)
# Parameters of SAM 2 that only videos need.
VIDEO = re.compile(
    r"memory_attention\.|memory_encoder\.|mask_downsample\.|obj_ptr_proj\.|obj_ptr_tpos_proj\.|"
    r"(maskmem_tpos_enc|no_mem_pos_enc|no_obj_ptr|no_obj_embed_spatial)$"
)
POSITIONS = "shared_embedding.positional_embedding"


def rename_sam(weights: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Return the parameters of segment-anything's `Sam` for `transformers.SamModel`.

    A parameter with an unknown name keeps it, so that strict loading refuses it.
    """
    return _with_shared_positions(_rename(weights, SAM))


def rename_sam2(weights: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Return the parameters of the authors' `SAM2Base` for `transformers.Sam2Model`.

    Those that only videos need are left out. A parameter with an unknown name keeps it.
    """
    import torch

    renamed = _rename({key: w for key, w in weights.items() if not VIDEO.match(key)}, SAM2)
    points = [f"prompt_encoder.point_embeddings.{n}.weight" for n in range(4)]
    if all(name in renamed and renamed[name].ndim == 2 for name in points):
        joined = torch.cat([renamed.pop(name) for name in points])
        renamed["prompt_encoder.point_embed.weight"] = joined
    return _with_shared_positions(renamed)


def _rename(weights: dict, patterns: tuple[tuple[str, str], ...]) -> dict:
    names = {}
    for key in weights:
        names[key] = key
        for pattern, replacement in patterns:
            names[key] = re.sub(pattern, replacement, names[key])
    counts = Counter(names.values())
    # A file may hold a parameter under both names.
    return {names[key] if counts[names[key]] == 1 else key: w for key, w in weights.items()}


def _with_shared_positions(weights: dict) -> dict:
    """Add the image's positions, which are those of the prompts."""
    if (name := f"prompt_encoder.{POSITIONS}") in weights:
        weights["shared_image_embedding.positional_embedding"] = weights[name]
    return weights
