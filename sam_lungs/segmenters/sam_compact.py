"""The compact SAM: segment-anything's architecture, small enough for its weights to be in git.

Architecture: Kirillov et al., Segment Anything, ICCV 2023, arXiv:2304.02643.
"""

from functools import partial

import torch
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

IMAGE_SIZE = 256
PATCH_SIZE = 8
ENCODER_WIDTH = 96
PROMPT_WIDTH = 64


def build_compact() -> Sam:
    """Return the compact SAM with random weights, for input of 256 x 256 pixels.

    The image encoder returns 32 x 32 tokens and the mask decoder 128 x 128 logits.
    """
    grid = IMAGE_SIZE // PATCH_SIZE
    return Sam(
        image_encoder=ImageEncoderViT(
            img_size=IMAGE_SIZE,
            patch_size=PATCH_SIZE,
            embed_dim=ENCODER_WIDTH,
            depth=6,
            num_heads=4,
            out_chans=PROMPT_WIDTH,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=8,
            global_attn_indexes=(2, 5),
        ),
        prompt_encoder=PromptEncoder(
            embed_dim=PROMPT_WIDTH,
            image_embedding_size=(grid, grid),
            input_image_size=(IMAGE_SIZE, IMAGE_SIZE),
            mask_in_chans=16,
        ),
        mask_decoder=MaskDecoder(
            transformer_dim=PROMPT_WIDTH,
            transformer=TwoWayTransformer(
                depth=2, embedding_dim=PROMPT_WIDTH, mlp_dim=256, num_heads=4
            ),
        ),
    )
