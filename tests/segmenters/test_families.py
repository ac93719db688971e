import subprocess
import sys

import pytest
import transformers
from conftest import ROOT

from sam_lungs.segmenters import hf, preprocessing
from sam_lungs.segmenters.base import MASK_CHOICES
from sam_lungs.segmenters.families import (
    CHOICES,
    FAMILIES,
    MASK_RULES,
    RESIZES,
    describe,
    family_of,
)


def test_importing_the_families_imports_no_large_package():
    code = (
        "import sys, sam_lungs.segmenters.families;"
        " sys.exit(bool({'torch', 'transformers', 'scipy', 'cv2'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_every_rule_has_code_and_a_description():
    assert RESIZES.keys() == preprocessing.RESIZES.keys()
    for family in FAMILIES.values():
        assert family.resize in RESIZES
        assert family.mask_rule in MASK_RULES
        assert family.model_choice in CHOICES
        assert family.embedding in hf.EMBEDDINGS


@pytest.mark.parametrize("name", FAMILIES)
def test_a_model_type_belongs_to_one_family(name):
    family = FAMILIES[name]
    model_class = getattr(transformers, family.model_class)
    for model_type in family.model_types:
        assert family_of(model_type) == name
        assert sum(model_type in each.model_types for each in FAMILIES.values()) == 1
    assert not family.model_types or model_class.config_class.model_type in family.model_types


def test_an_unknown_model_type_has_no_family():
    assert family_of("sam3") is None  # SAM 3 with text
    assert family_of("bert") is None


@pytest.mark.parametrize("name", FAMILIES)
def test_the_description_names_what_decides_the_numbers(name):
    described = describe(name)
    assert described["family"] == name
    assert described["preprocessing"].startswith("common slice; ")
    assert describe(name, preprocessing="native")["preprocessing"].startswith("native slice; ")
    assert {"torch", "transformers"} <= described["packages"].keys()
    assert "segment-anything" in described["packages"]


@pytest.mark.parametrize("name", FAMILIES)
def test_equal_choices_of_a_mask_are_described_equally(name):
    model, token0, best_score = (describe(name, choice)["mask_choice"] for choice in MASK_CHOICES)
    assert token0 != best_score
    assert (model == token0) == (FAMILIES[name].model_choice == "token0")


def test_families_with_other_preprocessing_have_another_text():
    texts = {
        (family.resize, family.mean, family.std): describe(name)["preprocessing"]
        for name, family in FAMILIES.items()
    }
    assert len(set(texts.values())) == len(texts) == 4
