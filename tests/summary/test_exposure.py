"""The table of exposure, and which entry a run has."""

import re
from dataclasses import replace

import pytest
from conftest import ROOT
from results_folders import RECORD

from sam_lungs.data.montgomery import CASES
from sam_lungs.data.zenodo import PAPER_VOLUMES
from sam_lungs.segmenters.presets import NAMES
from sam_lungs.summary.exposure import (
    ANY_DATASET,
    DATASETS,
    EXPOSURES,
    dataset_of,
    exposure_of,
    exposure_of_run,
    exposure_table,
)

CT, XRAY, PHANTOM, OWN = "image_coronacases_001", "MCUCXR_0001_0", "image_phantom_001", "case_17"


def record(model, provenance="official"):
    return replace(RECORD, segmenter=RECORD.segmenter | {"model": model, "provenance": provenance})


def test_every_entry_has_a_known_word_a_source_and_a_note():
    table = exposure_table()
    assert table.columns.tolist() == ["dataset", "model", "exposure", "source", "note"]
    assert table.notna().all(axis=None)
    assert set(table["exposure"]) == set(EXPOSURES)
    assert set(table["dataset"]) == {*DATASETS, ANY_DATASET}
    assert (table["model"] == table["model"].str.lower()).all()
    assert table["source"].str.match(r"https://|(docs|checkpoints)/\w+\.md$").all()
    own = table["source"][~table["source"].str.startswith("https://")]
    assert all((ROOT / source).is_file() for source in own)


def test_every_model_has_one_entry_for_every_dataset():
    table = exposure_table()
    assert not table.duplicated(["dataset", "model"]).any()
    with_rows = table[table["dataset"] != ANY_DATASET].groupby("model")["dataset"].agg(set)
    assert all(datasets == DATASETS.keys() for datasets in with_rows)
    anywhere = set(table["model"][table["dataset"] == ANY_DATASET])
    assert anywhere.isdisjoint(with_rows.index)
    assert {*NAMES} <= {*with_rows.index, *anywhere}


def test_the_page_has_the_same_table():
    lines = (ROOT / "docs" / "exposure.md").read_text("utf-8").splitlines()
    start = lines.index(f"| model | {' | '.join(DATASETS)} |")
    on_page = {}
    for line in lines[start + 2 : lines.index("", start)]:
        models, *exposures = (cell.strip() for cell in line.strip("|").split("|"))
        on_page |= dict.fromkeys(re.findall(r"`([^`]+)`", models), exposures)
    images = (CT, XRAY, PHANTOM)
    assert on_page == {
        model: [exposure_of(model, [image]).exposure for image in images]
        for model in exposure_table()["model"].unique()
    }


@pytest.mark.parametrize(
    ("dataset", "names"), [("COVID-19-CT-Seg", PAPER_VOLUMES), ("Montgomery", CASES)]
)
def test_volumes_are_known_with_and_without_image_and_with_more_after_it(dataset, names):
    for name in names:
        assert {dataset_of(f"{start}{name}") for start in ("", "image_")} == {dataset}
        assert dataset_of(f"{name}_slice_122") == dataset
        assert dataset_of(f"{name}1") is None
        assert dataset_of(f"my_{name}") is None


@pytest.mark.parametrize(("image", "dataset"), [("phantom_012", "synthetic"), ("phantom", None)])
def test_phantoms_are_known_by_their_number(image, dataset):
    assert dataset_of(image) == dataset


def test_compact_was_trained_on_phantoms_and_on_nothing_real():
    assert exposure_of("compact", [PHANTOM])[:2] == ("trained on", "synthetic")
    assert exposure_of("compact", [CT])[:2] == ("held out", "COVID-19-CT-Seg")
    assert exposure_of("SAM-Med3D", [CT]) == exposure_of("sam-med3d", [CT])


def test_several_datasets_have_the_worst_entry_and_all_sources():
    ct, phantom = (exposure_of("compact", [image]) for image in (CT, PHANTOM))
    both = exposure_of("sam-med2d", [PHANTOM, CT, XRAY])
    assert both[:2] == ("trained on", "synthetic, COVID-19-CT-Seg, Montgomery")
    assert both.source.startswith("docs/synthetic.md; https://")
    assert exposure_of("compact", [CT, OWN]).exposure == "unknown"
    assert exposure_of("compact", [CT, OWN]).dataset == "COVID-19-CT-Seg, other data"
    assert exposure_of("compact", [PHANTOM, OWN]).exposure == "trained on"
    # The two entries have the same source, which is named once.
    assert exposure_of("compact", [CT, PHANTOM]).source == ct.source == phantom.source


@pytest.mark.parametrize("model", ["vit_b", "sam-med3d"])
def test_images_of_no_known_dataset_are_unknown(model):
    assert exposure_of(model, [OWN, "b"]) == ("unknown", None, "images of no known dataset")


def test_a_model_that_is_not_in_the_table_is_unknown():
    model = f"hub:somebody/model@{'0' * 40}"
    assert exposure_of(model, [CT])[:2] == ("unknown", "COVID-19-CT-Seg")
    assert model in exposure_of(model, [CT]).source


@pytest.mark.parametrize("model", ["box", "threshold"])
def test_what_has_no_training_is_held_out_everywhere(model):
    assert exposure_of(model, [CT, OWN]).exposure == "held out"
    assert exposure_of_run({OWN: record(model, "none")}, [OWN]).exposure == "held out"


@pytest.mark.parametrize("provenance", ["official", "seen"])
def test_the_model_of_a_run_counts_by_its_name(provenance):
    records = {CT: record("sam-med3d", provenance)}
    assert exposure_of_run(records, ["coronacases_001"]) == exposure_of("sam-med3d", [CT])


def test_given_weights_are_unknown():
    found = exposure_of_run({CT: record("vit_b", "given")}, [CT])
    assert found == ("unknown", "COVID-19-CT-Seg", "weights given as a file")


def test_a_volume_whose_model_is_not_recorded_is_unknown():
    unnamed = replace(RECORD, segmenter={})
    for records in ({}, {XRAY: record("vit_b")}, {CT: unnamed}):
        assert exposure_of_run(records, [CT])[:2] == ("unknown", "COVID-19-CT-Seg")
