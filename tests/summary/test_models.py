"""The models of compared runs."""

from dataclasses import replace
from html import unescape

import pandas as pd
import pytest
from results_folders import RECORD, write_report, write_volume

from sam_lungs.segmenters.families import FAMILIES, describe
from sam_lungs.study.results import SliceResult
from sam_lungs.summary.compare import read_runs
from sam_lungs.summary.models import models_table


def segmenter(model: str, family: str) -> dict:
    about = {"provenance": "given", "licence": None, "size_bytes": 375_049_145, "weights": {}}
    return {"model": model, **describe(family), **about}


@pytest.fixture
def write(tmp_path):
    """Write a run over two volumes; return its folder."""

    def write_run(name: str, record=RECORD):
        for image, dice in (("image_a", 0.9), ("image_b", 0.8)):
            slices = [SliceResult(0, dice / (2 - dice), dice, dice, 10, 10)]
            write_volume(tmp_path / name / image, slices, record)
        return tmp_path / name

    return write_run


def test_a_row_for_each_model_and_way_of_using_it(write):
    medsam = replace(RECORD, segmenter=segmenter("medsam", "medsam"))
    apart = replace(medsam, options=medsam.options | {"objects": "apart"})
    records = {"paper": RECORD, "box": medsam, "one_by_one": apart, "no_box": RECORD}
    table = models_table(read_runs([write(name, record) for name, record in records.items()]))
    assert table["runs"].tolist() == ["paper, no_box", "box", "one_by_one"]
    assert table["objects"].tolist() == ["together", "together", "apart"]
    assert table["prompts"].tolist() == ["", "box", "box"]
    row = table.iloc[1].to_dict()
    assert row["megabytes"] == 375
    assert row["note"] == FAMILIES["medsam"].note
    assert row["preprocessing"] == describe("medsam")["preprocessing"]
    assert pd.isna(row["licence"])


def test_the_authors_results_have_no_model(tmp_path):
    (tmp_path / "paper" / "image_a").mkdir(parents=True)
    path = tmp_path / "paper" / "image_a" / "raw_data_2023-05-27_09-43-55.csv"
    path.write_text("slice,jaccard,dice\n0,0.5,0.5\n")
    assert models_table(read_runs([tmp_path / "paper"])).empty


def test_the_report_says_what_a_reader_must_know_of_a_model(write):
    folder = write("hq", replace(RECORD, segmenter=segmenter("own", "sam_hq")))
    assert FAMILIES["sam_hq"].note in unescape(write_report(folder).read_text("utf-8"))


def test_exposure_is_that_of_all_volumes_of_a_row(tmp_path):
    compact = replace(RECORD, segmenter=RECORD.segmenter | {"model": "compact"})
    real, drawn = tmp_path / "real", tmp_path / "drawn"
    for folder in (real / "image_coronacases_001", drawn / "phantom_001"):
        write_volume(folder, [SliceResult(0, 0.8, 0.9, 0.9, 10, 10)], compact)
    for folders, exposure in (
        ([real], "held out"),
        ([drawn], "trained on"),
        ([real, drawn], "trained on"),
    ):
        table = models_table(read_runs(folders))
        assert table["exposure"].tolist() == [exposure]
        assert table["exposure_source"].tolist() == ["checkpoints/sam_compact.md"]
