"""How a run was made: the facts that `run.json` needs so that the run can be repeated."""

import hashlib
import importlib.metadata
import platform
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PACKAGES = (
    "torch",
    "torchvision",
    "segment-anything",
    "numpy",
    "nibabel",
    "opencv-python-headless",
    "pandas",
    "pillow",
)


# What measures surfaces, and has no part in masks and embeddings.
SURFACE_PACKAGES = ("monai", "scipy")


def code_commit() -> str | None:
    """Return the commit of this code, `-dirty` if it was changed since; `None` outside git."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    here = Path(__file__).parent
    try:
        told = subprocess.run(git, cwd=here, capture_output=True, text=True, check=True)
        return told.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def code_sha256(modules: Sequence[str]) -> str:
    """Return the SHA-256 of the source of modules of this package, in the order given.

    Unlike the commit it stays the same when only a text or a figure changes.
    """
    digest = hashlib.sha256()
    for module in modules:
        digest.update((Path(__file__).parents[1] / f"{module}.py").read_bytes())
    return digest.hexdigest()


def difference(there: Mapping[str, object], now: Mapping[str, object]) -> str:
    """Tell what differs between how something was made and how it is asked for, by name."""

    def short(value: object) -> str:
        # As much of a hash as tells it from another.
        return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)

    return "; ".join(
        f"{name} {short(there.get(name))} there, {short(now.get(name))} now"
        for name in dict.fromkeys((*there, *now))
        if there.get(name) != now.get(name)
    )


def versions() -> dict[str, str]:
    """Return the versions of Python, the system, and the packages that make the numbers."""
    system = {"python": platform.python_version(), "system": platform.platform()}
    return system | package_versions() | _versions_of(SURFACE_PACKAGES)


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that make masks and scores."""
    return _versions_of(PACKAGES)


def _versions_of(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        # Another build, such as opencv-python, does as well and goes by another name.
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def device_name(device: "torch.device") -> str:
    """Return the name of a GPU's product, or the kind of any other device.

    Of a CPU also its vector instructions, which decide PyTorch's last digits.
    """
    # Imported here because torch takes seconds, which the other facts need not wait for.
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    return device.type
