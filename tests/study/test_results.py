import csv
import math
import statistics
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from sam_lungs.study.results import (
    EmptySlice,
    SliceResult,
    lung_slices_dice,
    read_empty_slices,
    read_raw_data,
    read_volume_metrics,
    slices_table,
)
from sam_lungs.study.results import write_volume_tables as write_tables
from sam_lungs.utils.errors import InputError

SLICES = [
    SliceResult(0, None, None, None, 0, None),
    SliceResult(1, 0.5, 2 / 3, 0.75, 10, 20, 5),
    SliceResult(2, 0.25, 0.4, 0.1, 30, 7, 0),
]


def write_volume_tables(folder, slices, of_volume=None, empty_slices=None) -> None:
    write_tables(folder, slices_table(slices), of_volume or {}, empty_slices)


def rows(path) -> list[list[str]]:
    return list(csv.reader(path.read_text().splitlines()))


def test_the_tables_of_a_volume(tmp_path):
    write_volume_tables(tmp_path / "image", SLICES)
    assert (tmp_path / "image" / "raw_data.csv").read_bytes() == (
        b"slice,jaccard,dice,score,lung_pixels,predicted_pixels,interactions\n"
        b"0,,,,0,,\n"
        b"1,0.5,0.6666666666666666,0.75,10,20,5\n"
        b"2,0.25,0.4,0.1,30,7,0\n"
    )
    header, of_jaccard, of_dice = rows(tmp_path / "image" / "results.csv")
    assert header == ["metric", "min", "max", "avg", "std", "slices"]
    assert of_jaccard[0] == "jaccard"
    assert [float(x) for x in of_jaccard[1:4]] == [0.25, 0.5, 0.375]
    assert of_jaccard[5] == "2"
    assert float(of_jaccard[4]) == pytest.approx(statistics.stdev([0.25, 0.5]))
    assert [float(x) for x in of_dice[1:3]] == [0.4, 2 / 3]
    assert len(list((tmp_path / "image").iterdir())) == 2


def test_requested_metrics_get_columns_and_rows(tmp_path):
    slices = [
        SLICES[0],
        replace(SLICES[1], more={"nsd_1mm": 0.5, "hd95_mm": 3.0}),
        SliceResult(2, 0.0, 0.0, 0.1, 30, 0, more={"nsd_1mm": 0.0, "hd95_mm": math.nan}),
    ]
    write_volume_tables(tmp_path, slices, {"dice_3d": 0.25, "interactions": 5})
    header, *_, last = rows(tmp_path / "raw_data.csv")
    assert header[-2:] == ["nsd_1mm", "hd95_mm"]
    assert last[-2:] == ["0.0", ""]
    table = pd.read_csv(tmp_path / "results.csv", index_col="metric")
    assert table.index.tolist() == [
        *("jaccard", "dice", "nsd_1mm", "hd95_mm", "dice_3d", "interactions"),
    ]
    assert table["slices"].fillna(-1).tolist() == [2, 2, 2, 1, -1, -1]
    assert table["avg"].tolist()[2:] == [0.25, 3.0, 0.25, 5]
    assert table.loc["dice_3d", ["min", "max", "std"]].isna().all()
    assert read_volume_metrics(tmp_path) == {"dice_3d": 0.25}
    read = read_raw_data(tmp_path / "raw_data.csv")
    assert read["nsd_1mm"].dtype == float
    assert read["interactions"].tolist()[1:] == [5, pd.NA]


def test_the_dice_score_of_slices_with_lung():
    slices = [SLICES[0], SLICES[1], SliceResult(2, 0.0, 0.0, 0.1, 30, 0)]
    # Intersections of 10 and 0 pixels; areas of 10 and 20, and of 30 and 0.
    expected = pytest.approx(2 * 10 / (10 + 20 + 30 + 0))
    assert lung_slices_dice(slices_table(slices)) == expected


def test_empty_slices_are_read_back_and_a_later_run_removes_them(tmp_path):
    write_volume_tables(tmp_path, SLICES, empty_slices=[EmptySlice(0, 1, 7, 3.5)])
    table = read_empty_slices(tmp_path)
    assert table.to_dict("list") == {
        "slice": [0],
        "prompted_as": [1],
        "predicted_pixels": [7],
        "predicted_mm2": [3.5],
    }
    write_volume_tables(tmp_path, SLICES)
    assert not (tmp_path / "empty_slices.csv").exists()
    (tmp_path / "empty_slices.csv").write_text("slice,predicted_pixels\n0,7\n")
    with pytest.raises(InputError, match="empty_slices"):
        read_empty_slices(tmp_path)


def test_one_slice_has_no_standard_deviation(tmp_path):
    write_volume_tables(tmp_path, SLICES[:2])
    assert rows(tmp_path / "results.csv")[1] == ["jaccard", "0.5", "0.5", "0.5", "", "1"]


def test_a_table_is_read_back_exactly(tmp_path):
    values = np.random.default_rng(0).random(200)
    slices = [SliceResult(i, v, v / 3, v / 7, 1, 2) for i, v in enumerate(values.tolist())]
    write_volume_tables(tmp_path, slices)
    table = read_raw_data(tmp_path / "raw_data.csv")
    assert table["jaccard"].tolist() == values.tolist()
    assert table["score"].tolist() == (values / 7).tolist()


def test_a_truncated_table_is_refused_unless_it_ends_with_a_whole_row(tmp_path):
    write_volume_tables(tmp_path, SLICES)
    content = (tmp_path / "raw_data.csv").read_bytes()
    cut = tmp_path / "cut.csv"
    for length in range(len(content)):
        cut.write_bytes(content[:length])
        if content[:length].endswith(b"\n"):
            assert len(read_raw_data(cut)) == content[:length].count(b"\n") - 1
        else:
            with pytest.raises(InputError, match=r"cut\.csv"):
                read_raw_data(cut)
