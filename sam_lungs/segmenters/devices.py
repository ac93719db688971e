"""The devices of this machine, and settings that make their results repeatable."""

import os
import time
from collections.abc import Sequence
from functools import cache

import torch
from torch.nn.functional import linear

from sam_lungs.utils.errors import InputError


def choose_devices(name: str) -> list[torch.device]:
    """Return all devices of the kind `name`; `auto` is the first available of cuda, mps and cpu.

    Raises `InputError` when a GPU is requested and there is none.
    """
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next((gpu for gpu in available if available[gpu]), "cpu")
    if not available.get(name, True):
        raise InputError(f"--device {name}: no such GPU is available; use --device cpu")
    if name == "cuda":
        return [torch.device("cuda", number) for number in range(torch.cuda.device_count())]
    return [torch.device(name)]


# A product that takes this many times as long as in float32 is refused. Without instructions for a
# precision it takes 4 to 1000 times as long; with them less than in float32.
SLOW = 1.5


def check_speed(precision: str, devices: Sequence[torch.device]) -> None:
    """Raise `InputError` when the CPU would compute in a lower precision, and slower for it.

    precision: one of `base.PRECISIONS`.
    """
    if precision == "float32" or devices[0].type != "cpu":
        return
    if (ratio := slowdown(precision)) > SLOW:
        raise InputError(
            f"--precision {precision}: this processor takes {ratio:.2g} times as long for a matrix"
            " product as in float32; leave --precision out, or add --allow_slow"
        )


@cache
def slowdown(precision: str) -> float:
    """Return how many times as long as in float32 a matrix product takes on the CPU.

    The product has the width of ViT-B. It is measured for 0.3 seconds, and at least once.
    """
    types = torch.float32, getattr(torch, precision)
    factors = [(torch.ones(256, 768, dtype=t), torch.ones(768, 768, dtype=t)) for t in types]
    linear(*factors[0])  # the first takes longer
    seconds = []
    end = time.perf_counter() + 0.3
    while not seconds or (len(seconds) < 10 and time.perf_counter() < end):
        clock = [time.perf_counter()]
        for each in factors:
            linear(*each)
            clock.append(time.perf_counter())
        seconds.append((clock[1] - clock[0], clock[2] - clock[1]))
    exact, lower = map(min, zip(*seconds, strict=True))
    return lower / exact


def be_repeatable() -> None:
    """Make results bitwise repeatable: no TF32, no choice of algorithms by measured speed."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
