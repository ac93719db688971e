"""SAM's prompt encoder and mask decoder for many prompts of one slice.

A prompt has few tokens (7 for one click) and the image has 4096. For each prompt, segment-anything
projects all tokens of the image to keys, values and queries, and copies the image for each change
of layout. Here the results are equal up to float32 rounding, with less than half of the arithmetic:

- Projections are moved from the image to the tokens of the prompt: q (W x) = (W' q) x for scores,
  sum_n a_n (W x_n) = W (sum_n a_n x_n) for values.
- What the first layer computes from the image alone is computed once for all prompts that have no
  mask prompt.
- The last attention is computed only for the tokens that are used after it.
- Transposed convolutions, whose kernels are as large as their strides, are matrix products with the
  channels last. Only the logits are brought into the order of the pixels.

Architecture: Kirillov et al., Segment Anything, ICCV 2023, arXiv:2304.02643.
"""

from functools import cached_property

import torch
from segment_anything.modeling import Sam
from segment_anything.modeling.transformer import Attention, TwoWayAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

# Tokens of the image that are computed at a time, so that they fit in a processor's cache.
TOKENS_AT_ONCE = 1024


class SliceDecoder:
    """The mask decoder of one SAM model, prepared for one slice.

    In the shapes below, N are the tokens of the image and T those of a prompt.
    """

    def __init__(self, sam: Sam, embedding: Tensor) -> None:
        """embedding: (channels, side, side) float32."""
        self._prompt_encoder = sam.prompt_encoder
        self._decoder = sam.mask_decoder
        self._side = embedding.shape[-1]
        self._embedding = _as_tokens(embedding)
        self._positions = _as_tokens(sam.prompt_encoder.get_dense_pe()[0])
        convolutions = sam.mask_decoder.output_upscaling[0], sam.mask_decoder.output_upscaling[3]
        self._upscaling = [_as_product(convolution) for convolution in convolutions]

    @torch.inference_mode()
    def decode(
        self,
        points_xy: Tensor,
        labels: Tensor,
        boxes_xyxy: Tensor | None,
        mask_logits: Tensor | None = None,
        multimask: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Return the mask logits and the predicted IoUs of one prompt.

        It is computed alone, so that the result does not depend on other prompts. Arguments and
        results are those of `sam.decode_prompts` for N = 1.
        """
        sparse, dense = self._prompt_encoder(
            points=(points_xy, labels) if labels.shape[1] else None,
            boxes=boxes_xyxy,
            masks=None if mask_logits is None else mask_logits[:, None],
        )
        # One token for the predicted IoUs, one for each mask, and those of the points and the box.
        decoder, transformer = self._decoder, self._decoder.transformer
        tokens = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight, sparse[0]])
        queries = tokens
        if mask_logits is None:
            image, projected = self._first_layer
        else:
            image, projected = self._embedding + _as_tokens(dense[0]), None
        for layer in transformer.layers:
            queries, image = self._attend(layer, queries, tokens, image, projected)
            projected = None

        masks = range(1, decoder.num_mask_tokens) if multimask else range(1)
        queries, tokens = queries[: 1 + masks.stop], tokens[: 1 + masks.stop]
        last = transformer.final_attn_token_to_image
        queries = transformer.norm_final_attn(
            queries + _read(last, queries + tokens, image, image + self._positions)
        )
        kernels = [decoder.output_hypernetworks_mlps[mask](queries[1 + mask]) for mask in masks]
        logits = self._upscale(image, torch.stack(kernels, dim=1))
        predicted_ious = decoder.iou_prediction_head(queries[:1])[:, masks.start : masks.stop]
        return (logits[None], predicted_ious) if multimask else (logits, predicted_ious[:, 0])

    @cached_property
    def _first_layer(self) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """The image of prompts without a mask prompt, (N, channels), and its projections.

        The projections are keys and values of the first layer, (heads, channels, N) and (heads, N,
        channels), and its queries, (heads, channels, N).
        """
        image = self._embedding + self._prompt_encoder.no_mask_embed.weight
        layer = self._decoder.transformer.layers[0]
        read, write = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        image_pe = image + self._positions
        keys = _split(read, read.k_proj(image_pe)).mT.contiguous()
        values = _split(read, read.v_proj(image)).contiguous()
        queries = _split(write, write.q_proj(image_pe)).mT.contiguous()
        return image, (keys, values, queries)

    def _attend(
        self,
        layer: TwoWayAttentionBlock,
        queries: Tensor,
        tokens: Tensor,
        image: Tensor,
        projected: tuple[Tensor, Tensor, Tensor] | None,
    ) -> tuple[Tensor, Tensor]:
        """Return the tokens of the prompt and of the image after a layer.

        queries, tokens: (T, channels), tokens as the first layer gets them. image: (N, channels).
        projected: of this image, see `_first_layer`, or None.
        """
        if layer.skip_first_layer_pe:
            queries = layer.self_attn(queries[None], queries[None], queries[None])[0]
        else:
            query_pe = (queries + tokens)[None]
            queries = queries + layer.self_attn(query_pe, query_pe, queries[None])[0]
        queries = layer.norm1(queries)

        image_pe = None if projected else image + self._positions
        read, write = layer.cross_attn_token_to_image, layer.cross_attn_image_to_token
        queries = layer.norm2(queries + _read(read, queries + tokens, image, image_pe, projected))
        queries = layer.norm3(queries + layer.mlp(queries))

        keys = _split(write, write.k_proj(queries + tokens))
        values = _split(write, write.v_proj(queries))
        weights = _scores(write, keys, write.q_proj, image_pe, projected and projected[2])
        weights = weights.softmax(1).flatten(0, 1)  # of (heads, T, N)
        written = values @ _split(write, write.out_proj.weight).mT  # (heads, T, channels)
        written[0] += write.out_proj.bias  # the weights of a head add up to 1
        written = written.flatten(0, 1)
        pieces = zip(image.split(TOKENS_AT_ONCE), weights.T.split(TOKENS_AT_ONCE), strict=True)
        pieces = [layer.norm4(torch.addmm(*piece, written)) for piece in pieces]
        return queries, torch.cat(pieces)

    def _upscale(self, image: Tensor, kernels: Tensor) -> Tensor:
        """Return the logits, (masks, 4 side, 4 side).

        image: (N, channels). kernels: (channels / 8, masks).
        """
        _, norm, activation, _, last_activation = self._decoder.output_upscaling
        (weight, bias), (last_weight, last_bias) = self._upscaling
        pieces = []
        for piece in image.split(TOKENS_AT_ONCE):
            upscaled = torch.addmm(bias, piece, weight).view(-1, len(last_weight))
            upscaled = F.layer_norm(upscaled, norm.weight.shape, norm.weight, norm.bias, norm.eps)
            upscaled = torch.addmm(last_bias, activation(upscaled), last_weight)
            pieces.append(last_activation(upscaled).view(-1, len(kernels)) @ kernels)
        # 2 x 2 squares of 2 x 2 pixels for each token
        logits = torch.cat(pieces).view(self._side, self._side, 2, 2, 2, 2, -1)
        return logits.permute(6, 0, 2, 4, 1, 3, 5).reshape(-1, 4 * self._side, 4 * self._side)


def _as_tokens(image: Tensor) -> Tensor:
    """Return an image, (channels, side, side), as (N, channels)."""
    return image.flatten(1).T.contiguous()


def _as_product(convolution: nn.ConvTranspose2d) -> tuple[Tensor, Tensor]:
    """Return weight, (channels in, 4 x channels out), and bias, (4 x channels out,)."""
    return convolution.weight.permute(0, 2, 3, 1).flatten(1), convolution.bias.repeat(4)


def _split(attention: Attention, tokens: Tensor) -> Tensor:
    """Return tokens, (tokens, heads x channels), as (heads, tokens, channels)."""
    return tokens.unflatten(1, (attention.num_heads, -1)).transpose(0, 1)


def _scores(
    attention: Attention,
    tokens: Tensor,
    projection: nn.Linear,
    image: Tensor,
    projected: Tensor | None,
) -> Tensor:
    """Return the scores of the tokens of a prompt with those of the image, (heads, T, N).

    tokens: (heads, T, channels), queries or keys. projection: of the image, (N, channels), to its
    keys or queries; projected: these, (heads, channels, N), or None.
    """
    tokens = tokens * tokens.shape[-1] ** -0.5
    if projected is not None:
        return tokens @ projected
    weight = projection.weight.unflatten(0, (attention.num_heads, -1))
    bias = projection.bias.view(attention.num_heads, -1, 1)
    return (tokens @ weight @ image.T).add_(tokens @ bias)


def _read(
    attention: Attention,
    queries: Tensor,
    image: Tensor,
    image_pe: Tensor | None,
    projected: tuple[Tensor, Tensor, Tensor] | None = None,
) -> Tensor:
    """Return the attention of the tokens of a prompt to the image, (T, channels).

    image_pe: the image with its positions. projected: of `SliceDecoder._first_layer`, or None.
    """
    queries = _split(attention, attention.q_proj(queries))
    weights = _scores(attention, queries, attention.k_proj, image_pe, projected and projected[0])
    weights = weights.softmax(-1)
    if projected:
        read = weights @ projected[1]
    else:
        weight = attention.v_proj.weight.unflatten(0, (attention.num_heads, -1))
        bias = attention.v_proj.bias.view(attention.num_heads, 1, -1)
        read = weights @ image @ weight.mT + bias
    return attention.out_proj(read.transpose(0, 1).flatten(1))
