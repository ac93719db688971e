import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import ROOT, tiny_sam
from server import error_of

from sam_lungs.prompts.protocols import Prompts
from sam_lungs.segmenters import checkpoints, devices, hub
from sam_lungs.segmenters.base import MODELS, segment
from sam_lungs.segmenters.checkpoints import CHECKPOINTS, CHECKPOINTS_FOLDER
from sam_lungs.segmenters.presets import PRESETS, parse_model
from sam_lungs.segmenters.registry import (
    PREPROCESSING,
    identify,
    load_segmenters,
    native_window,
    weights_path,
)
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import sha256_of

COMPACT = CHECKPOINTS_FOLDER / CHECKPOINTS["compact"].file_name


@pytest.mark.parametrize("module", ["prompts.protocols", "segmenters.base", "segmenters.registry"])
def test_importing_the_names_of_options_does_not_import_torch(module):
    code = f"import sys, sam_lungs.{module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_the_identity_of_official_weights():
    identity = identify("compact", None)
    assert identity["model"] == "compact"
    assert identity["family"] == "segment-anything"
    assert identity["weights"] == {COMPACT.name: CHECKPOINTS["compact"].sha256}
    # Saved embeddings are valid as long as these are the same.
    assert identity["preprocessing"] == PREPROCESSING
    packages = {"torch", "torchvision", "segment-anything", "numpy", "pillow"}
    assert identity["packages"].keys() == packages
    assert (identity["provenance"], identity["licence"]) == ("official", "Apache-2.0")
    assert identity["size_bytes"] == CHECKPOINTS["compact"].size_bytes


def test_the_identity_of_custom_weights_is_their_hash(tmp_path):
    path = tmp_path / "own.pth"
    path.write_bytes(b"abc")
    identity = identify("vit_b", path)
    (sha256,) = identity["weights"].values()
    assert sha256.startswith("ba7816bf")
    assert (identity["provenance"], identity["licence"]) == ("given", None)


def test_official_weights_of_another_family_are_not_official():
    identity = identify("medsam", COMPACT)
    assert (identity["provenance"], identity["licence"]) == ("given", None)


def test_the_identity_of_another_mask_choice():
    identity = identify("compact", mask_choice="best_score")
    assert identity["preprocessing"] == PREPROCESSING
    assert identity["mask_choice"] != identify("compact")["mask_choice"]
    assert identify("compact", mask_choice="token0") == identify("compact")


def test_official_weights_of_another_hash_are_refused(tmp_path, monkeypatch):
    (tmp_path / COMPACT.name).write_bytes(bytes(CHECKPOINTS["compact"].size_bytes))
    monkeypatch.setattr(checkpoints.fetch, "__defaults__", (tmp_path, None))
    identify.cache_clear()
    with pytest.raises(InputError, match="not the official compact checkpoint"):
        identify("compact", None)


def test_every_model_has_a_checkpoint():
    assert tuple(CHECKPOINTS) == MODELS


def test_weights_path(tmp_path):
    assert weights_path("compact", None) == COMPACT
    assert weights_path("compact", tmp_path) == tmp_path
    assert weights_path(None, model_folder=tmp_path) == tmp_path
    assert {weights_path(name).parent for name in (*MODELS, *PRESETS)} == {CHECKPOINTS_FOLDER}


def test_every_device_gets_a_model_of_its_own(monkeypatch):
    monkeypatch.setattr(devices, "choose_devices", lambda name: [torch.device(name)] * 3)
    segmenters = load_segmenters("compact", device="cpu")
    assert len({id(segmenter._sam) for segmenter in segmenters}) == 3
    assert all(segmenter.identity == identify("compact", None) for segmenter in segmenters)


# --- Models of transformers ---------------------------------------------------------------------

IMAGE_RGB = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
POINT = Prompts(np.array([[20, 30]]), np.array([1]), None)
BOX = Prompts(np.zeros((0, 2)), np.zeros(0), np.array([5, 6, 30, 40]))
REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="session")
def sam_folder(tmp_path_factory) -> Path:
    pytest.importorskip("transformers")
    from hf_models import build

    folder = tmp_path_factory.mktemp("models") / "own"
    build("sam").save_pretrained(folder)
    return folder


@pytest.fixture
def fetched(sam_folder, tmp_path, monkeypatch):
    """Return the folder of a model as a fetch leaves it, and make it that of the model."""
    identify.cache_clear()
    monkeypatch.setattr(checkpoints, "CHECKPOINTS_FOLDER", tmp_path)
    monkeypatch.setattr(checkpoints.fetch, "__defaults__", (tmp_path, None))

    def make(name: str) -> Path:
        folder = hub.folder_of(name, PRESETS[name], tmp_path)
        if folder.name.endswith("@"):
            folder = folder.with_name(f"{folder.name}{REVISION}")
        shutil.copytree(sam_folder, folder)
        hashes = {path.name: sha256_of(path) for path in folder.iterdir()}
        (folder / hub.RECORD).write_text(json.dumps({"sha256": hashes}))
        return folder

    return make


def test_the_identity_of_a_folder(sam_folder):
    identity = identify(None, model_folder=sam_folder)
    assert (identity["model"], identity["family"]) == ("own", "sam")
    assert identity["weights"] == {
        name: sha256_of(sam_folder / name) for name in ("config.json", "model.safetensors")
    }
    assert (identity["provenance"], identity["licence"]) == ("given", None)
    assert {"torch", "transformers"} <= identity["packages"].keys()


def test_a_folder_is_loaded(sam_folder):
    (segmenter,) = load_segmenters(None, device="cpu", model_folder=sam_folder)
    assert segmenter.identity == identify(None, model_folder=sam_folder)
    assert segment(segmenter, IMAGE_RGB, POINT).mask.shape == (40, 56)


def test_a_name_beside_a_folder_chooses_the_family(sam_folder):
    (segmenter,) = load_segmenters("medsam", device="cpu", model_folder=sam_folder)
    assert segmenter.identity["family"] == "medsam"
    assert segment(segmenter, IMAGE_RGB, BOX).mask.shape == (40, 56)
    assert "medsam: accepts box prompts only" in error_of(segment, segmenter, IMAGE_RGB, POINT)


def test_a_fetched_model_is_loaded_without_network(fetched):
    folder = fetched("slimsam_50")
    assert weights_path("slimsam_50") == folder
    (segmenter,) = load_segmenters("slimsam_50", device="cpu")
    identity = segmenter.identity
    assert (identity["provenance"], identity["licence"]) == ("seen", "Apache-2.0")
    assert identity["weights"].keys() == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_changed_byte_in_a_fetched_model_is_refused(fetched, name):
    path = fetched("slimsam_50") / name
    content = bytearray(path.read_bytes())
    content[-2] ^= 1
    path.write_bytes(content)
    message = error_of(load_segmenters, "slimsam_50", device="cpu")
    assert message.startswith(f"{path}: has changed since it was fetched")


def test_a_known_hash_counts_more_than_the_record(fetched):
    folder = fetched("sam3")
    message = error_of(load_segmenters, "sam3", device="cpu")
    assert message.startswith(f"{folder / 'model.safetensors'}: has changed")
    assert PRESETS["sam3"].sha256["model.safetensors"] in message


def test_a_file_of_fine_tuned_weights(tmp_path, monkeypatch):
    pytest.importorskip("transformers")
    from hf_models import as_transformers

    config = as_transformers(tiny_sam()).config.to_dict()
    monkeypatch.setitem(PRESETS, "medsam", replace(PRESETS["medsam"], config=config))
    path = tmp_path / "medsam_model_best.pth"
    torch.save({"model": tiny_sam().state_dict(), "optimizer": {}, "epoch": 1}, path)
    (segmenter,) = load_segmenters("medsam", path, "cpu")
    assert segmenter.identity["provenance"] == "given"
    assert segmenter.identity["weights"] == {path.name: sha256_of(path)}
    assert segment(segmenter, IMAGE_RGB, BOX).mask.shape == (40, 56)


def test_a_file_and_a_folder_are_refused_together(sam_folder, tmp_path):
    message = error_of(identify, None, tmp_path / "file.pth", sam_folder)
    assert message.startswith("--checkpoint and --model_folder both name weights")


@pytest.mark.parametrize("model", ["slimsam_50", f"hub:owner/name@{REVISION}"])
def test_a_model_of_the_hub_takes_no_file(tmp_path, model):
    message = error_of(identify, model, tmp_path / "file.pth")
    assert f"--model {model} does not take one file of weights" in message


@pytest.mark.parametrize("model", ["vit_b", "sam2.1_hiera_tiny", f"hub:owner/name@{REVISION}"])
def test_a_folder_of_another_family_is_refused(sam_folder, model):
    message = error_of(identify, model, model_folder=sam_folder)
    assert f"the family sam, which does not fit --model {model}; leave --model out" in message


def test_without_the_extra(sam_folder, monkeypatch):
    monkeypatch.setattr(hub, "find_spec", lambda package: None)
    message = error_of(load_segmenters, None, device="cpu", model_folder=sam_folder)
    assert message == "own: needs transformers; install it with: pip install '.[models]'"
    load_segmenters("compact", device="cpu")


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_family(name):
    from sam_lungs.segmenters.families import FAMILIES, family_of

    preset = PRESETS[parse_model(name)]
    assert preset.family in FAMILIES
    if preset.config:
        assert family_of(preset.config["model_type"]) in (preset.family, "sam")


def test_only_medsam_has_a_window_of_its_authors():
    assert native_window("medsam") == (-160, 1500)
    for model in (None, "vit_l", "sam2.1_hiera_tiny", f"hub:owner/name@{'0' * 40}"):
        message = error_of(native_window, model)
        assert message == (
            f"{model or '--model_folder'}: its authors have no window for CT, only those of medsam"
            " have one; leave out --preprocessing native"
        )
