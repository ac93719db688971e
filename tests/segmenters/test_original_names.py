"""Parameter names of the authors' code -> transformers: every parameter exactly once."""

from itertools import pairwise

import pytest
import torch
from segment_anything import sam_model_registry

from sam_lungs.segmenters.original_names import rename_sam, rename_sam2
from sam_lungs.segmenters.presets import PRESETS

transformers = pytest.importorskip("transformers")

# Of sam2/configs/sam2.1: blocks, width of the first stage, side of the position embeddings, side of
# the windows, and parameters of the whole model, as the authors' code counts them.
SAM2 = {
    "tiny": ([1, 2, 7, 2], 96, 7, 8, 38_962_498),
    "small": ([1, 2, 11, 2], 96, 7, 8, 46_060_354),
    "base_plus": ([2, 3, 16, 3], 112, 14, 8, 80_850_178),
    "large": ([2, 6, 36, 4], 144, 7, 8, 224_446_642),
}


def mlp(name: str, *widths: int) -> dict[str, tuple[int, ...]]:
    shapes = {}
    for n, (before, after) in enumerate(pairwise(widths)):
        shapes |= {
            f"{name}.layers.{n}.weight": (after, before),
            f"{name}.layers.{n}.bias": (after,),
        }
    return shapes


def layer(name: str, *shape: int, bias: int | None = None) -> dict[str, tuple[int, ...]]:
    """Weight and bias; the bias has the first length of the weight unless it is given."""
    return {f"{name}.weight": shape, f"{name}.bias": (bias or shape[0],)}


def attention(name: str, width: int, inner: int, keys: int | None = None) -> dict:
    shapes = layer(f"{name}.q_proj", inner, width) | layer(f"{name}.out_proj", width, inner)
    for each in ("k_proj", "v_proj"):
        shapes |= layer(f"{name}.{each}", inner, keys or width)
    return shapes


def sam2_shapes(size: str) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all parameters of the authors' `SAM2Base` by name."""
    blocks, width, side, window, _ = SAM2[size]
    trunk = "image_encoder.trunk"
    shapes = {
        f"{trunk}.pos_embed": (1, width, side, side),
        f"{trunk}.pos_embed_window": (1, width, window, window),
        **layer(f"{trunk}.patch_embed.proj", width, 3, 7, 7),
    }
    n = 0
    for stage, count in enumerate(blocks):
        for first in [True] + [False] * (count - 1):
            after = width << stage
            before = after >> 1 if first and stage else after
            name = f"{trunk}.blocks.{n}"
            shapes |= layer(f"{name}.norm1", before) | layer(f"{name}.norm2", after)
            shapes |= layer(f"{name}.attn.qkv", 3 * after, before)
            shapes |= layer(f"{name}.attn.proj", after, after)
            shapes |= mlp(f"{name}.mlp", after, 4 * after, after)
            if before != after:
                shapes |= layer(f"{name}.proj", after, before)
            n += 1
    for n in range(4):
        shapes |= layer(f"image_encoder.neck.convs.{n}.conv", 256, width << 3 - n, 1, 1)

    prompts, decoder = "sam_prompt_encoder", "sam_mask_decoder"
    shapes |= {
        f"{prompts}.pe_layer.positional_encoding_gaussian_matrix": (2, 128),
        f"{prompts}.not_a_point_embed.weight": (1, 256),
        f"{prompts}.no_mask_embed.weight": (1, 256),
        **{f"{prompts}.point_embeddings.{n}.weight": (1, 256) for n in range(4)},
        **layer(f"{prompts}.mask_downscaling.0", 4, 1, 2, 2),
        **layer(f"{prompts}.mask_downscaling.1", 4),
        **layer(f"{prompts}.mask_downscaling.3", 16, 4, 2, 2),
        **layer(f"{prompts}.mask_downscaling.4", 16),
        **layer(f"{prompts}.mask_downscaling.6", 256, 16, 1, 1),
        f"{decoder}.iou_token.weight": (1, 256),
        f"{decoder}.mask_tokens.weight": (4, 256),
        f"{decoder}.obj_score_token.weight": (1, 256),
        **layer(f"{decoder}.output_upscaling.0", 256, 64, 2, 2, bias=64),
        **layer(f"{decoder}.output_upscaling.1", 64),
        **layer(f"{decoder}.output_upscaling.3", 64, 32, 2, 2, bias=32),
        **layer(f"{decoder}.conv_s0", 32, 256, 1, 1),
        **layer(f"{decoder}.conv_s1", 64, 256, 1, 1),
        **mlp(f"{decoder}.iou_prediction_head", 256, 256, 256, 4),
        **mlp(f"{decoder}.pred_obj_score_head", 256, 256, 256, 1),
        **attention(f"{decoder}.transformer.final_attn_token_to_image", 256, 128),
        **layer(f"{decoder}.transformer.norm_final_attn", 256),
    }
    for n in range(4):
        shapes |= mlp(f"{decoder}.output_hypernetworks_mlps.{n}", 256, 256, 256, 32)
    for n in range(2):
        name = f"{decoder}.transformer.layers.{n}"
        shapes |= attention(f"{name}.self_attn", 256, 256)
        shapes |= attention(f"{name}.cross_attn_token_to_image", 256, 128)
        shapes |= attention(f"{name}.cross_attn_image_to_token", 256, 128)
        shapes |= mlp(f"{name}.mlp", 256, 2048, 256)
        for norm in range(1, 5):
            shapes |= layer(f"{name}.norm{norm}", 256)

    # For videos.
    shapes |= {
        "maskmem_tpos_enc": (7, 1, 1, 64),
        "no_mem_embed": (1, 1, 256),
        "no_mem_pos_enc": (1, 1, 256),
        "no_obj_ptr": (1, 256),
        "no_obj_embed_spatial": (1, 64),
        **layer("mask_downsample", 1, 1, 4, 4),
        **mlp("obj_ptr_proj", 256, 256, 256, 256),
        **layer("obj_ptr_tpos_proj", 64, 256),
        **layer("memory_attention.norm", 256),
    }
    for n in range(4):
        name = f"memory_attention.layers.{n}"
        shapes |= attention(f"{name}.self_attn", 256, 256)
        shapes |= attention(f"{name}.cross_attn_image", 256, 256, keys=64)
        shapes |= layer(f"{name}.linear1", 2048, 256) | layer(f"{name}.linear2", 256, 2048)
        for norm in range(1, 4):
            shapes |= layer(f"{name}.norm{norm}", 256)
    memory = "memory_encoder"
    shapes |= layer(f"{memory}.pix_feat_proj", 256, 256, 1, 1)
    shapes |= layer(f"{memory}.out_proj", 64, 256, 1, 1)
    for n, (before, after) in enumerate([(1, 4), (4, 16), (16, 64), (64, 256)]):
        name = f"{memory}.mask_downsampler.encoder"
        shapes |= layer(f"{name}.{3 * n}", after, before, 3, 3) | layer(
            f"{name}.{3 * n + 1}", after
        )
    shapes |= layer(f"{memory}.mask_downsampler.encoder.12", 256, 256, 1, 1)
    for n in range(2):
        name = f"{memory}.fuser.layers.{n}"
        shapes |= layer(f"{name}.dwconv", 256, 1, 7, 7) | layer(f"{name}.norm", 256)
        shapes |= layer(f"{name}.pwconv1", 1024, 256) | layer(f"{name}.pwconv2", 256, 1024)
        shapes[f"{name}.gamma"] = (256,)
    return shapes


def empty(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def shapes_of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Size]:
    return {name: weight.shape for name, weight in weights.items()}


@pytest.mark.parametrize("size", SAM2)
def test_the_listed_shapes_have_the_published_number_of_parameters(size):
    shapes = sam2_shapes(size)
    # The positions of prompts are a buffer.
    del shapes["sam_prompt_encoder.pe_layer.positional_encoding_gaussian_matrix"]
    assert sum(torch.Size(shape).numel() for shape in shapes.values()) == SAM2[size][-1]


@pytest.mark.parametrize("size", SAM2)
def test_sam2_gets_every_parameter_once(size):
    config = transformers.Sam2Config.from_dict(PRESETS[f"sam2.1_hiera_{size}"].config)
    with torch.device("meta"):
        model = transformers.Sam2Model(config)
    assert shapes_of(rename_sam2(empty(sam2_shapes(size)))) == shapes_of(model.state_dict())


def test_sam_gets_every_parameter_once():
    with torch.device("meta"):
        original = sam_model_registry["vit_b"]()
        model = transformers.SamModel(transformers.SamConfig.from_dict(PRESETS["medsam"].config))
    assert shapes_of(rename_sam(original.state_dict())) == shapes_of(model.state_dict())


@pytest.mark.parametrize("rename", [rename_sam, rename_sam2])
def test_unknown_names_are_kept(rename):
    weights = {"a": torch.zeros(1), "sam_mask_decoder.hf_token.weight": torch.ones(1)}
    assert len(rename(weights)) == 2
    assert "a" in rename(weights)


def test_a_parameter_under_two_names_is_not_lost():
    weights = {
        "image_encoder.pos_embed": torch.zeros(1),
        "vision_encoder.pos_embed": torch.ones(1),
    }
    assert rename_sam(weights).keys() == weights.keys()


def test_the_four_points_of_sam2_keep_their_order():
    name = "sam_prompt_encoder.point_embeddings"
    weights = {f"{name}.{n}.weight": torch.full((1, 2), float(n)) for n in (2, 0, 3, 1)}
    (joined,) = rename_sam2(weights).values()
    assert joined[:, 0].tolist() == [0, 1, 2, 3]
