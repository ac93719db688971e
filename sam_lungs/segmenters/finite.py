"""Are all numbers finite? A failed computation must not be taken for a bad mask."""

from collections.abc import Iterable

import torch


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Return whether floating-point tensors, all of one device, have no NaN and no infinity.

    On a GPU it synchronizes once, however many tensors there are.
    """
    # `aminmax` passes NaN on, and is 15 times as fast as `isfinite` on a CPU.
    extremes = [torch.stack(torch.aminmax(tensor)).float() for tensor in tensors if tensor.numel()]
    return not extremes or torch.cat(extremes).isfinite().all().item()
