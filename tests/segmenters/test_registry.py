import subprocess
import sys

import pytest
import torch
from conftest import ROOT

from sam_lungs.segmenters import checkpoints, devices
from sam_lungs.segmenters.base import MODELS
from sam_lungs.segmenters.checkpoints import CHECKPOINTS, CHECKPOINTS_FOLDER
from sam_lungs.segmenters.registry import identify, load_segmenters, weights_path
from sam_lungs.utils.errors import InputError

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
    assert "window" in identity["preprocessing"]
    assert {"torch", "segment-anything", "numpy"} <= identity["packages"].keys()


def test_the_identity_of_custom_weights_is_their_hash(tmp_path):
    path = tmp_path / "own.pth"
    path.write_bytes(b"abc")
    (sha256,) = identify("vit_b", path)["weights"].values()
    assert sha256.startswith("ba7816bf")


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
    assert {weights_path(model, None).parent for model in MODELS} == {CHECKPOINTS_FOLDER}


def test_every_device_gets_a_model_of_its_own(monkeypatch):
    monkeypatch.setattr(devices, "choose_devices", lambda name: [torch.device(name)] * 3)
    segmenters = load_segmenters("compact", device="cpu")
    assert len({id(segmenter._sam) for segmenter in segmenters}) == 3
    assert all(segmenter.identity == identify("compact", None) for segmenter in segmenters)
