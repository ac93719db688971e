"""Shared by the tests: tiny volumes, a tiny SAM, real slices, and functions that run scripts."""

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from faults import ROOT as ROOT
from faults import Child
from hypothesis import HealthCheck, settings
from segment_anything.modeling import (
    ImageEncoderViT,
    MaskDecoder,
    PromptEncoder,
    Sam,
    TwoWayTransformer,
)

from sam_lungs.utils import waiting

# Tests check standard error, also on a slow machine.
waiting.SECONDS = 600

# Chosen with `scripts/test.sh --hypothesis-profile=nightly`.
UNHURRIED = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("normal", max_examples=200, **UNHURRIED)
settings.register_profile("nightly", max_examples=10_000, **UNHURRIED)
settings.load_profile("normal")


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of the real slices and the published results; skip the test without it."""
    if "SAM_LUNGS_REAL_DATA" not in os.environ:
        pytest.skip("SAM_LUNGS_REAL_DATA does not name the folder of real slices")
    return Path(os.environ["SAM_LUNGS_REAL_DATA"])


@pytest.fixture
def run(tmp_path):
    """Run a script or a module in a separate process, in another folder.

    Slow modules are already imported there, see `faults`. `test_cold_start.py` tests the start in a
    new Python process.
    """

    def run_python(name: str, *arguments: object) -> subprocess.CompletedProcess:
        script = name if name.endswith(".py") else f"{name.replace('.', '/')}.py"
        child = Child(tmp_path, script, *arguments)
        return subprocess.CompletedProcess(script, child.wait(), *child.streams())

    return run_python


@pytest.fixture
def run_copied(tmp_path):
    """Run a module in a copy of the package, without network.

    In a copy, because modules download files to a folder beside the package.
    """
    shutil.copytree(ROOT / "sam_lungs", tmp_path / "sam_lungs")

    def run(module: str, *arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=tmp_path,
            env={**os.environ, "https_proxy": "http://127.0.0.1:9", "no_proxy": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of a number of KiB, or change the size of the mounted one."""
    folder = tmp_path / "disk"

    def mount(kilobytes):
        again = folder.is_mount()
        folder.mkdir(exist_ok=True)
        options = f"{'remount,' if again else ''}size={kilobytes}k"
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("a small file system cannot be mounted")
        return folder

    yield mount
    if folder.is_mount():
        subprocess.run(["umount", folder], check=True)


def assert_refused(done: subprocess.CompletedProcess, *words: str) -> None:
    """Assert exit status 1 and one line on standard error that contains these words."""
    assert done.returncode == 1, done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("error: ")
    for word in words:
        assert word in done.stderr


def tiny_sam() -> Sam:
    """SAM's architecture at 64 x 64 pixels, with seeded random weights."""
    torch.manual_seed(0)
    sam = Sam(
        ImageEncoderViT(
            img_size=64,
            patch_size=16,
            embed_dim=32,
            depth=2,
            num_heads=2,
            out_chans=32,
            norm_layer=partial(torch.nn.LayerNorm, eps=1e-6),
            use_rel_pos=True,
            window_size=3,
            global_attn_indexes=(1,),
        ),
        PromptEncoder(
            embed_dim=32, image_embedding_size=(4, 4), input_image_size=(64, 64), mask_in_chans=16
        ),
        MaskDecoder(
            transformer_dim=32,
            transformer=TwoWayTransformer(depth=2, embedding_dim=32, mlp_dim=64, num_heads=2),
        ),
    )
    randomize_positions(sam.image_encoder)
    return sam.eval().requires_grad_(False)


@torch.no_grad()
def randomize_positions(vit: ImageEncoderViT) -> None:
    """Set the positions of an untrained image encoder, which are zero, to random values."""
    for name, parameter in vit.named_parameters():
        if "pos" in name:
            parameter.normal_(std=0.5)


def chest(rows: int = 40, columns: int = 56, slices: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A body with two lungs, in Hounsfield units, and their labels; the first slice has no lung.

    Returns two arrays (rows, columns, slices), int16 and uint8.
    """
    row, column = np.mgrid[:rows, :columns] / np.array([rows, columns])[:, None, None]
    body = (row - 0.5) ** 2 / 0.4**2 + (column - 0.5) ** 2 / 0.45**2 < 1
    image = np.repeat(np.where(body, 40, -1000)[:, :, None], slices, axis=2)
    masks = np.zeros(image.shape)
    for index in range(1, slices):
        for label, middle in ((1, 0.3), (2, 0.7)):
            lung = (row - 0.5) ** 2 / 0.25**2 + (column - middle) ** 2 / 0.13**2 < index / slices
            masks[lung, index] = label
            image[lung, index] = -850 + index
    return image.astype(np.int16), masks.astype(np.uint8)


def save_nifti(path: Path, array: np.ndarray, affine: np.ndarray | None = None) -> Path:
    """Write an array (rows, columns, slices) so that `read_nifti` returns the same array."""
    affine = np.diag([-0.7, -0.8, 5, 1]) if affine is None else affine
    nib.save(nib.Nifti1Image(array.swapaxes(0, 1), affine), path)
    return path
