"""Small models of each family with seeded random weights, and SAM's weights for transformers."""

import copy
from functools import cache

import pytest
import torch
from segment_anything.modeling import Sam
from transformers import (
    EdgeTamConfig,
    EdgeTamModel,
    Sam2Config,
    Sam2Model,
    Sam3TrackerConfig,
    Sam3TrackerModel,
    SamConfig,
    SamHQConfig,
    SamHQModel,
    SamModel,
    TimmWrapperConfig,
)

PROMPT = {"hidden_size": 32, "image_size": 64, "patch_size": 16, "mask_input_channels": 16}
DECODER = {"hidden_size": 32, "mlp_dim": 64, "num_attention_heads": 2, "iou_head_hidden_dim": 32}
HEADS = {"prompt_encoder_config": PROMPT, "mask_decoder_config": DECODER}
VIT = {
    "hidden_size": 32,
    "output_channels": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 64,
    "window_size": 3,
    "global_attn_indexes": [1, 2],
    "num_pos_feats": 16,
}


def build(family: str, *options: int) -> torch.nn.Module:
    """Return the small model of a family, for 64 x 64 pixels or, SAM 3, 56 x 56."""
    return copy.deepcopy(_build(family, *options))


@cache
def _build(family: str, *options: int) -> torch.nn.Module:
    torch.manual_seed(0)
    model = BUILDERS[family](*options)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name:
                parameter.normal_(
                    std=0.5 / parameter[0].numel() ** 0.5 if parameter.ndim > 1 else 0.1
                )
    return model.eval().requires_grad_(False)


def sam() -> SamModel:
    return SamModel(SamConfig(vision_config=VIT, **HEADS))


def sam_hq() -> SamHQModel:
    return SamHQModel(
        SamHQConfig(
            vision_config=VIT,
            prompt_encoder_config=PROMPT,
            mask_decoder_config={**DECODER, "vit_dim": 32},
        )
    )


def sam2() -> Sam2Model:
    return Sam2Model(
        Sam2Config(
            vision_config={
                "backbone_config": {
                    "model_type": "sam2_hiera_det_model",
                    "hidden_size": 16,
                    "num_attention_heads": 1,
                    "image_size": [64, 64],
                    "blocks_per_stage": [1, 2, 2, 1],
                    "embed_dim_per_stage": [16, 32, 64, 128],
                    "num_attention_heads_per_stage": [1, 2, 4, 8],
                    "window_positional_embedding_background_size": [4, 4],
                    "window_size_per_stage": [8, 4, 4, 2],
                    "global_attention_blocks": [4],
                },
                "backbone_channel_list": [128, 64, 32, 16],
                "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
                "fpn_hidden_size": 32,
            },
            **HEADS,
        )
    )


def edgetam() -> EdgeTamModel:
    pytest.importorskip("timm")
    return EdgeTamModel(
        EdgeTamConfig(
            vision_config={
                "backbone_config": TimmWrapperConfig(
                    architecture="repvit_m1",
                    model_args={"in_chans": 3, "features_only": True, "out_indices": [0, 1, 2, 3]},
                ),
                "backbone_channel_list": [384, 192, 96, 48],
                "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
                "fpn_hidden_size": 32,
            },
            **HEADS,
        )
    )


def sam3(levels: int = 4) -> Sam3TrackerModel:
    return Sam3TrackerModel(
        Sam3TrackerConfig(
            vision_config={
                "backbone_config": {
                    "model_type": "sam3_vit_model",
                    "hidden_size": 32,
                    "intermediate_size": 64,
                    "num_hidden_layers": 2,
                    "num_attention_heads": 2,
                    "image_size": 56,
                    "patch_size": 14,
                    "window_size": 2,
                    "global_attn_indexes": [1],
                    "pretrain_image_size": 28,
                },
                "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
                "fpn_hidden_size": 32,
                "scale_factors": [4.0, 2.0, 1.0, 0.5][:levels],
            },
            prompt_encoder_config={**PROMPT, "image_size": 56, "patch_size": 14},
            mask_decoder_config=DECODER,
        )
    )


BUILDERS = {
    "sam": sam,
    "medsam": sam,
    "sam_hq": sam_hq,
    "sam2": sam2,
    "edgetam": edgetam,
    "sam3": sam3,
}


RENAMED = (  # parameter names of segment-anything, and of transformers
    ("image_encoder", "vision_encoder"),
    ("patch_embed.proj", "patch_embed.projection"),
    ("vision_encoder.blocks", "vision_encoder.layers"),
    ("neck.0", "neck.conv1"),
    ("neck.1", "neck.layer_norm1"),
    ("neck.2", "neck.conv2"),
    ("neck.3", "neck.layer_norm2"),
    ("mask_downscaling.0", "mask_embed.conv1"),
    ("mask_downscaling.1", "mask_embed.layer_norm1"),
    ("mask_downscaling.3", "mask_embed.conv2"),
    ("mask_downscaling.4", "mask_embed.layer_norm2"),
    ("mask_downscaling.6", "mask_embed.conv3"),
    ("point_embeddings", "point_embed"),
    ("pe_layer.positional_encoding_gaussian_matrix", "shared_embedding.positional_embedding"),
    ("output_upscaling.0", "upscale_conv1"),
    ("output_upscaling.1", "upscale_layer_norm"),
    ("output_upscaling.3", "upscale_conv2"),
    (".norm_final_attn", ".layer_norm_final_attn"),
    (".norm", ".layer_norm"),
)


def as_transformers(sam: Sam) -> SamModel:
    """Return a SAM of segment-anything as a model of transformers with the same weights."""
    vit, decoder = sam.image_encoder, sam.mask_decoder
    block, width = vit.blocks[0], decoder.transformer_dim
    side, patch = vit.img_size, vit.patch_embed.proj.stride[0]
    two_way = decoder.transformer
    config = SamConfig(
        vision_config={
            "hidden_size": vit.patch_embed.proj.out_channels,
            "output_channels": width,
            "num_hidden_layers": len(vit.blocks),
            "num_attention_heads": block.attn.num_heads,
            "image_size": side,
            "patch_size": patch,
            "window_size": max(each.window_size for each in vit.blocks),
            "global_attn_indexes": [
                index for index, each in enumerate(vit.blocks) if each.window_size == 0
            ],
            "num_pos_feats": width // 2,
        },
        prompt_encoder_config={"hidden_size": width, "image_size": side, "patch_size": patch},
        mask_decoder_config={
            "hidden_size": width,
            "mlp_dim": two_way.mlp_dim,
            "num_attention_heads": two_way.num_heads,
        },
    )
    weights = {}
    for name, weight in sam.state_dict().items():
        for old, new in RENAMED:
            name = name.replace(old, new)
        if "output_hypernetworks_mlps" in name or "iou_prediction_head" in name:
            first, between, last = "layers.0", "layers.1", "layers.2"
            name = name.replace(first, "proj_in").replace(between, first)
            name = name.replace(last, "proj_out")
        weights[name] = weight
    shared = weights["prompt_encoder.shared_embedding.positional_embedding"]
    weights["shared_image_embedding.positional_embedding"] = shared
    with torch.device("meta"):
        model = SamModel(config)
    model.load_state_dict(weights, assign=True)
    return model.eval().requires_grad_(False)
