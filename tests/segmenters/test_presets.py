"""The names of models."""

import re
import subprocess
import sys

import pytest
from conftest import ROOT
from server import error_of

from sam_lungs.segmenters.presets import NAMES, PRESETS, parse_model, preset_of

REVISION = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize("name", NAMES)
def test_names(name):
    assert parse_model(name) == name


def test_a_name_of_the_hub():
    preset = preset_of(f"hub:facebook/sam-vit-base@{REVISION}")
    assert (preset.repository, preset.revision) == ("facebook/sam-vit-base", REVISION)


@pytest.mark.parametrize(
    "text",
    [
        "hub:facebook/sam-vit-base",
        "hub:facebook/sam-vit-base@main",
        f"hub:facebook/sam-vit-base@{REVISION[:-1]}",
        f"hub:facebook/sam-vit-base@{REVISION}0",
        f"hub:facebook/sam-vit-base@{REVISION.upper()}",
        f"hub:facebook/sam-vit-base@{REVISION}\n",
        f"hub:sam-vit-base@{REVISION}",
        f"hub:../sam-vit-base@{REVISION}",
        f"hub:a/../b@{REVISION}",
        f"hub:a/..@{REVISION}",
    ],
)
def test_other_names_of_the_hub_are_refused(text):
    assert "REVISION is a commit of 40 hexadecimal digits" in error_of(parse_model, text)


@pytest.mark.parametrize("text", ["", "vit_x", "VIT_B", "vit_b,vit_l", "facebook/sam-vit-base"])
def test_unknown_names_are_refused(text):
    assert "the models are vit_b, vit_l, vit_h, compact, sam2.1" in error_of(parse_model, text)


def test_presets_of_segment_anything_are_not_in_the_table():
    assert preset_of("vit_b") is None


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_one_source(name):
    preset = PRESETS[name]
    assert (preset.repository is None) == (preset.original is not None)
    assert bool(preset.config) == (preset.original is not None)
    hashes = [*preset.sha256.values(), *([preset.original.sha256] if preset.original else [])]
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in hashes)


def test_importing_the_names_does_not_import_torch_or_transformers():
    code = (
        "import sys, sam_lungs.segmenters.presets, sam_lungs.segmenters.registry;"
        " sys.exit(bool({'torch', 'transformers', 'huggingface_hub'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0
