"""How a run was made: the facts that `run.json` needs so that the run can be repeated."""

import importlib.metadata
import platform
import subprocess
from contextlib import suppress
from pathlib import Path

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


def code_commit() -> str | None:
    """Return the commit of this code, `-dirty` if it was changed since; `None` outside git."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    here = Path(__file__).parent
    try:
        told = subprocess.run(git, cwd=here, capture_output=True, text=True, check=True)
        return told.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def versions() -> dict[str, str]:
    """Return the versions of Python, the system, and the packages that make the numbers."""
    system = {"python": platform.python_version(), "system": platform.platform()}
    return system | package_versions()


def package_versions() -> dict[str, str]:
    """Return the versions of the packages that make the numbers."""
    found = {}
    for package in PACKAGES:
        # Another build, such as opencv-python, does as well and goes by another name.
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def device_name(device: torch.device) -> str:
    """Return the name of a GPU's product, or the kind of any other device."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
