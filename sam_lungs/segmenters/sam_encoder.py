"""SAM's image encoder: same weights and results as segment-anything, with less memory and time.

segment-anything computes the relative position bias of every pair of tokens at once, 1 GB per slice
for ViT-L, and applies every linear layer to the padding of its windows. Here the bias is computed
in pieces, and the padding is used only as keys of the attention.

Architecture: Li et al., Exploring Plain Vision Transformer Backbones for Object Detection, ECCV
2022, arXiv:2203.16527; relative positions: Li et al., MViTv2, CVPR 2022, arXiv:2112.01526.
"""

from itertools import product

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import (
    Attention,
    Block,
    get_rel_pos,
    window_partition,
    window_unpartition,
)
from torch import Tensor
from torch.nn import functional as F

# Elements of the position bias computed at a time, so that they fit in a processor's cache.
BIAS_NUMBERS = 1 << 21


class Encoder:
    """The image encoder of one SAM model, on the device of its weights."""

    def __init__(self, vit: ImageEncoderViT, dtype: torch.dtype) -> None:
        """Convert the weights of the blocks to `dtype`, in place.

        dtype: of the matrix products in the blocks, which take most of the time. The residual
            stream and everything else are float32.
        """
        self.dtype = dtype
        self.vit = vit
        for block in self.vit.blocks:
            block.attn.to(dtype)
            block.mlp.to(dtype)

    @torch.inference_mode()
    def encode(self, images: Tensor) -> Tensor:
        """Return the embeddings of a batch, (images, channels, side, side) float32.

        images: (images, 3, side, side) float32, as `Sam.preprocess` returns them.
        """
        tokens = self.vit.patch_embed(images) + self.vit.pos_embed  # (images, rows, columns, width)
        for block in self.vit.blocks:
            tokens += self._attend(block, block.norm1(tokens).to(self.dtype))
            tokens += block.mlp(block.norm2(tokens).to(self.dtype))
        return self.vit.neck(tokens.permute(0, 3, 1, 2))

    def _attend(self, block: Block, tokens: Tensor) -> Tensor:
        """Return the attention of a block, before the residual is added.

        tokens: (images, rows, columns, width), like the result.
        """
        attention, window = block.attn, block.window_size
        qkv = attention.qkv(tokens)
        if window == 0:
            return attention.proj(_attention(attention, qkv))
        rows, columns = tokens.shape[1:3]
        below, right = -rows % window, -columns % window
        # `qkv` of zeros is its bias.
        padded = F.pad(qkv, (0, 0, 0, right, 0, below))
        padded[:, rows:] = padded[:, :, columns:] = attention.qkv.bias
        windows, padded_size = window_partition(padded, window)
        attended = _attention(attention, windows)
        return attention.proj(
            window_unpartition(attended, window, padded_size, (rows, columns)).contiguous()
        )


def _attention(attention: Attention, qkv: Tensor) -> Tensor:
    """Return the attention within each square of tokens, (squares, rows, columns, width).

    qkv: (squares, rows, columns, 3 x width).
    """
    squares, rows, columns, _ = qkv.shape
    heads = attention.num_heads
    q, k, v = qkv.view(squares, rows * columns, 3, heads, -1).permute(2, 0, 3, 1, 4)
    by_position = q.unflatten(2, (rows, columns))  # (squares, heads, rows, columns, channels)
    of_rows = get_rel_pos(rows, rows, attention.rel_pos_h)  # (rows, key rows, channels)
    of_columns = get_rel_pos(columns, columns, attention.rel_pos_w)
    row_bias = torch.einsum("shrcd,rkd->shrck", by_position, of_rows).flatten(2, 3)
    column_bias = torch.einsum("shrcd,ckd->shrck", by_position, of_columns).flatten(2, 3)
    attend = _attend_in_pieces if qkv.device.type == "cpu" else _attend_extended
    attended = attend(q, k, v, row_bias, column_bias, attention.scale)
    return attended.transpose(1, 2).reshape(squares, rows, columns, -1)


def _attend_in_pieces(
    q: Tensor, k: Tensor, v: Tensor, row_bias: Tensor, column_bias: Tensor, scale: float
) -> Tensor:
    """Return the attention; its bias is computed for as many queries at a time as fit the cache.

    q, k, v: (squares, heads, tokens, channels), like the result. row_bias, column_bias: (squares,
        heads, tokens, rows or columns), the bias of each query with the keys of a row or column.
    """
    attended = torch.empty_like(q)
    squares, heads, tokens, _ = q.shape
    # The numbers of squares, heads and queries in a piece.
    sizes = [max(1, BIAS_NUMBERS // each) for each in (heads * tokens**2, tokens**2, tokens)]
    starts = (range(0, *each) for each in zip((squares, heads, tokens), sizes, strict=True))
    for corner in product(*starts):
        piece = tuple(slice(at, at + size) for at, size in zip(corner, sizes, strict=True))
        bias = row_bias[piece][..., :, None] + column_bias[piece][..., None, :]
        attended[piece] = F.scaled_dot_product_attention(
            q[piece], k[piece[:2]], v[piece[:2]], attn_mask=bias.flatten(-2), scale=scale
        )
    return attended


def _attend_extended(
    q: Tensor, k: Tensor, v: Tensor, row_bias: Tensor, column_bias: Tensor, scale: float
) -> Tensor:
    """Return the same attention without an explicit bias, for the fused kernels of GPUs.

    Each query gets its bias for every row and column of keys as additional channels. Each key gets
    ones in the channels of its own row and column. Arguments as for `_attend_in_pieces`.
    """
    rows, columns, channels = row_bias.shape[-1], column_bias.shape[-1], q.shape[-1]
    ones = torch.eye(rows + columns, dtype=q.dtype, device=q.device)
    positions = ones[:rows].repeat_interleave(columns, 0) + ones[rows:].repeat(rows, 1)
    q = torch.cat([q * scale, row_bias, column_bias], dim=-1)
    k = torch.cat([k, positions.expand(*k.shape[:2], -1, -1)], dim=-1)
    v = F.pad(v, (0, rows + columns))  # flash attention needs as many channels as the keys have
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :channels]
