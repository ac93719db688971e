"""The devices of this machine, and settings that make their results repeatable."""

import os

import torch

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


def be_repeatable() -> None:
    """Make results bitwise repeatable: no TF32, no choice of algorithms by measured speed."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True
