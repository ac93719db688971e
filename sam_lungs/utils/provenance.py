"""Facts about the code, the packages and the device, recorded with every result."""

import ast
import hashlib
import importlib.metadata
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

PACKAGE_FOLDER = Path(__file__).parents[1]
# Packages that compute numbers.
PACKAGES = (
    *("torch", "torchvision", "segment-anything", "numpy", "nibabel", "opencv-python-headless"),
    *("pandas", "pillow", "monai", "scipy"),
)


def code_commit() -> str | None:
    """Return the commit of this code, with `-dirty` after local changes; `None` outside git."""
    git = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(git, cwd=PACKAGE_FOLDER, capture_output=True, text=True, check=True)
        return done.stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def code_sha256(patterns: Sequence[str]) -> str:
    """Return the SHA-256 of modules of this package, in lower-case hexadecimal.

    patterns: globs relative to the package's folder, such as "data/*.py"; each matches a module.

    Only the syntax trees count: comments, docstrings, blank lines and layout do not change the
    hash; any other edit does.
    """
    digest = hashlib.sha256()
    modules = set()
    for pattern in patterns:
        found = set(PACKAGE_FOLDER.glob(pattern))
        assert found, f"{pattern} matches no module"
        modules |= found
    for path in sorted(modules):
        code = ast.unparse(_RemoveDocstrings().visit(ast.parse(path.read_bytes())))
        digest.update(f"{path.relative_to(PACKAGE_FOLDER)}\n{code}\n".encode())
    return digest.hexdigest()


class _RemoveDocstrings(ast.NodeTransformer):
    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_text = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_text else node


def difference(there: Mapping[str, object], now: Mapping[str, object]) -> str:
    """Return the entries that differ, as "NAME VALUE there, VALUE now"; hashes are shortened.

    there: from a file that was written earlier.
    """

    def short(value: object) -> str:
        return value[:12] if isinstance(value, str) and len(value) == 64 else str(value)

    return "; ".join(
        f"{name} {short(there.get(name))} there, {short(now.get(name))} now"
        for name in dict.fromkeys((*there, *now))
        if there.get(name) != now.get(name)
    )


def versions_of(packages: Sequence[str]) -> dict[str, str]:
    """Return the installed versions of packages; a package that is not installed is left out."""
    found = {}
    for package in packages:
        # A package may be installed under another name, such as opencv-python.
        with suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def device_name(device: "torch.device") -> str:
    """Return a GPU's product name, or the kind of another device.

    For a CPU it includes the vector instructions, because PyTorch's last digits depend on them.
    """
    import torch  # imported here, because it takes seconds and only this function needs it

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    if device.type == "cpu":
        return f"cpu ({torch.backends.cpu.get_cpu_capability()})"
    return device.type
