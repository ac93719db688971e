"""SAM's image encoder: segment-anything's weights and results, without its waste.

segment-anything writes down what relative positions add to the attention of every pair of tokens,
1 GB a slice for ViT-L, and passes the padding of its windows through every linear layer. Here the
first is made piece by piece, and padding costs nothing but its place as a key.

Architecture: Li et al., Exploring Plain Vision Transformer Backbones for Object Detection, ECCV
2022, arXiv:2203.16527; relative positions: Li et al., MViTv2, CVPR 2022, arXiv:2112.01526.
"""

from collections.abc import Iterator

import torch
from segment_anything.modeling import ImageEncoderViT
from segment_anything.modeling.image_encoder import (
    Attention,
    Block,
    get_rel_pos,
    window_partition,
    window_unpartition,
)
from torch.nn import functional as F

# Numbers that relative positions add to scores, in one piece: what a processor's cache holds.
BIAS_NUMBERS = 1 << 21


class Encoder:
    """The image encoder of one SAM, where its weights are."""

    def __init__(self, vit: ImageEncoderViT, dtype: torch.dtype) -> None:
        """Take over the weights, those of the blocks as dtype.

        dtype: of the matrix products in the blocks, which are nearly all of the work. What is added
            up along the blocks, and all else, is float32.
        """
        self.dtype = dtype
        self.vit = vit
        for block in self.vit.blocks:
            block.attn.to(dtype)
            block.mlp.to(dtype)

    @torch.inference_mode()
    def encode(self, images: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of a batch, (images, channels, side, side) float32.

        images: (images, 3, side, side) float32, as `Sam.preprocess` returns them.
        """
        tokens = self.vit.patch_embed(images) + self.vit.pos_embed  # (images, rows, columns, width)
        for block in self.vit.blocks:
            tokens += self._attend(block, block.norm1(tokens).to(self.dtype))
            tokens += block.mlp(block.norm2(tokens).to(self.dtype))
        return self.vit.neck(tokens.permute(0, 3, 1, 2))

    def _attend(self, block: Block, tokens: torch.Tensor) -> torch.Tensor:
        """Return what attention adds to tokens (images, rows, columns, width)."""
        attention, window = block.attn, block.window_size
        qkv = attention.qkv(tokens)
        if window == 0:
            return attention.proj(_attention(attention, qkv))
        rows, columns = tokens.shape[1:3]
        below, right = -rows % window, -columns % window
        # Padding is zeros before `qkv`, and so its bias after it; as a key it takes part.
        padded = F.pad(qkv, (0, 0, 0, right, 0, below))
        padded[:, rows:] = padded[:, :, columns:] = attention.qkv.bias
        windows, padded_size = window_partition(padded, window)
        attended = _attention(attention, windows)
        return attention.proj(
            window_unpartition(attended, window, padded_size, (rows, columns)).contiguous()
        )


def _attention(attention: Attention, qkv: torch.Tensor) -> torch.Tensor:
    """Attend in each of the squares: (squares, rows, columns, 3 x width) -> (..., width)."""
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


def _attend_in_pieces(q, k, v, row_bias, column_bias, scale):
    """Attention with a bias that is made where it is used, for as many queries as fit the cache.

    q, k, v: (squares, heads, tokens, channels); row_bias, column_bias: (squares, heads, tokens,
    rows or columns), what a query adds to its score with the keys of a row or column.
    """
    attended = torch.empty_like(q)
    for piece in _pieces(*q.shape[:3]):
        bias = row_bias[piece][..., :, None] + column_bias[piece][..., None, :]
        attended[piece] = F.scaled_dot_product_attention(
            q[piece], k[piece[:2]], v[piece[:2]], attn_mask=bias.flatten(-2), scale=scale
        )
    return attended


def _pieces(squares: int, heads: int, tokens: int) -> Iterator[tuple[slice, slice, slice]]:
    """Yield which squares, heads and queries go together."""
    squares_each = max(1, BIAS_NUMBERS // (heads * tokens**2))
    heads_each = min(heads, max(1, BIAS_NUMBERS // tokens**2))
    queries_each = max(1, BIAS_NUMBERS // tokens)
    for square in range(0, squares, squares_each):
        for head in range(0, heads, heads_each):
            for query in range(0, tokens, queries_each):
                yield (
                    slice(square, square + squares_each),
                    slice(head, head + heads_each),
                    slice(query, query + queries_each),
                )


def _attend_extended(q, k, v, row_bias, column_bias, scale):
    """The same as plain attention, the bias carried by more channels, for fused kernels of GPUs.

    A query is extended by its bias for each row and column of keys, a key by ones at its own.
    """
    rows, columns, channels = row_bias.shape[-1], column_bias.shape[-1], q.shape[-1]
    ones = torch.eye(rows + columns, dtype=q.dtype, device=q.device)
    positions = ones[:rows].repeat_interleave(columns, 0) + ones[rows:].repeat(rows, 1)
    q = torch.cat([q * scale, row_bias, column_bias], dim=-1)
    k = torch.cat([k, positions.expand(*k.shape[:2], -1, -1)], dim=-1)
    v = F.pad(v, (0, rows + columns))  # flash attention wants as many channels as of keys
    return F.scaled_dot_product_attention(q, k, v, scale=1.0)[..., :channels]
