"""Damaged weights, and activations too large for float16: one line, and nothing is recorded."""

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import ROOT, assert_refused, chest, save_nifti

from sam_lungs.segmenters.checkpoints import read_weights
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.study.options import Options
from sam_lungs.study.run import run_study
from sam_lungs.utils.errors import InputError

FILES = ("-i", "image_a.nii.gz", "-m", "masks_a.nii.gz")
MODEL = ("--model", "compact", "--checkpoint", "weights.pth")
RUNS = {
    "volume": ("process_image.py",),
    "slice": ("process_image.py", "--slice", 2),
    "embeddings": ("process_image.py", "--embeddings_folder", "kept"),
    "dry run": ("process_image.py", "--dry_run"),
    "exploration": ("explore_prompts.py", "clicks", "--clicks", 2),
    "explored slice": ("explore_prompts.py", "points", "--repeats", 1, "--slice", 2),
}
# Where they fail.
SLICES = dict.fromkeys(RUNS, 1) | {"slice": 2, "explored slice": 2}
# Activations are too large for float16, and the results are nearly the same.
TOO_LARGE_FOR_FLOAT16 = {
    "mlp_lin1_weight": lambda tensor: tensor * 1e7,
    "mlp_lin2_weight": lambda tensor: tensor * 1e-7,
}


@pytest.fixture
def folder(tmp_path):
    for kind, array in zip(("image", "masks"), chest(), strict=True):
        save_nifti(tmp_path / f"{kind}_a.nii.gz", array)
    return tmp_path


@pytest.fixture
def save(folder):
    """Save the compact weights after changes: how a name ends -> what is done with its tensors."""

    def save_changed(**changes) -> None:
        weights, _ = read_weights(ROOT / "checkpoints" / "sam_compact.pth")
        for name, tensor in weights.items():
            for ending, change in changes.items():
                if name.replace(".", "_").endswith(ending):
                    weights[name] = change(tensor.float())
        torch.save(weights, folder / "weights.pth")

    return save_changed


def one_nan(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.index_fill(0, torch.tensor(0), np.nan)


def start(run, name: str, *options: object):
    script, *more = RUNS[name]
    return run(script, *more, *FILES, *MODEL, "--output_folder", "out", "--device", "cpu", *options)


def assert_nothing_recorded(folder) -> None:
    tables = [path for path in folder.rglob("*.csv") if path.stat().st_size]
    assert not tables
    assert not [path for path in folder.rglob("*.npz")]
    # The header of the log is there, and no slice.
    assert {len(log.read_text().splitlines()) for log in folder.rglob("*.jsonl")} <= {1}


@pytest.mark.parametrize("name", ["volume", "dry run", "exploration"])
def test_weights_with_nan_are_named(run, folder, save, name):
    save(image_encoder_neck_0_weight=one_nan)
    done = start(run, name)
    assert_refused(done, "weights.pth: 1 of ", "'image_encoder.neck.0.weight'", "use other weights")
    assert_nothing_recorded(folder)


@pytest.mark.parametrize("name", RUNS)
def test_weights_whose_embeddings_are_not_finite(run, folder, save, name):
    """The weights themselves are finite."""
    save(mlp_lin1_weight=lambda tensor: tensor * 1e38)
    done = start(run, name)
    where = f"image_a.nii.gz: slice {SLICES[name]}: compact: computed values that are not finite"
    assert_refused(done, where, "from its weights")
    assert_nothing_recorded(folder)


def test_weights_whose_masks_are_not_finite(run, folder, save):
    """The embeddings are finite."""
    save(mask_decoder_iou_token_weight=lambda tensor: tensor * 1e38)
    done = start(run, "volume")
    assert_refused(done, "image_a.nii.gz: slice 1: compact: computed values", "from its weights")
    assert_nothing_recorded(folder)


@pytest.mark.parametrize("name", ["embeddings", "dry run", "exploration"])
def test_float16_that_overflows(run, folder, save, name):
    save(**TOO_LARGE_FOR_FLOAT16)
    done = start(run, name, "--precision", "float16", "--allow_slow")
    where, remedy = "image_a.nii.gz: slice 1: ", "use --precision bfloat16 or float32"
    assert_refused(done, where, f"--precision float16; {remedy}")
    assert_nothing_recorded(folder)


def test_the_remedies_for_float16_work(run, folder, save):
    save(**TOO_LARGE_FOR_FLOAT16)
    for remedy in (("float32",), ("bfloat16", "--allow_slow")):
        done = start(run, "slice", "--precision", *remedy)
        assert done.returncode == 0, done.stderr
        assert "Dice score: " in done.stdout


def test_slices_before_a_failed_one_are_kept(folder, monkeypatch):
    files = [[folder / f"{kind}_a.nii.gz"] for kind in ("image", "masks")]
    options = Options(*files, model="compact", device="cpu")
    encode, calls = SamSegmenter._encode, []

    def fail_in_the_second(self, pictures: torch.Tensor) -> tuple[torch.Tensor]:
        calls.append(pictures)
        (embedding,) = encode(self, pictures)
        return (embedding if torch.equal(pictures, calls[0]) else embedding * np.nan,)

    monkeypatch.setattr(SamSegmenter, "_encode", fail_in_the_second)
    with pytest.raises(InputError, match=r"image_a\.nii\.gz: slice 2: compact: computed values"):
        run_study(options)
    (log,) = folder.rglob("*.jsonl")
    assert len(log.read_text().splitlines()) == 2  # the header and slice 1
    monkeypatch.setattr(SamSegmenter, "_encode", encode)
    assert run_study(options) == 0
    rows = pd.read_csv(next(folder.rglob("raw_data.csv")))
    assert (rows["dice"].dropna() > 0).tolist() == [True, True]
