"""The table of the dry run in terminals of any width."""

import os
import shutil

import pandas as pd
import pytest

from sam_lungs.study import dry_run_table
from sam_lungs.study.dry_run_table import COLUMNS, print_table, table_lines

ROW = {
    "masks": "masks_coronacases_001.nii.gz",
    "size": "512x512",
    "slices": "301",
    "spacing mm": "0.711,0.711,1",
    "values": "-1024 to 3071",
    "window": "-600,1500",
    "labels": "1, 2",
    "lung": "250",
    "to do": "250",
    "faults": "none",
}


def rows(count: int = 20) -> list[dict[str, str]]:
    """Rows like those of the paper's study: most columns differ."""
    return [
        ROW
        | {
            "image": f"image_radiopaedia_{number:02}_85914_0",
            "masks": f"masks_radiopaedia_{number:02}_85914_0.npy",
            "size": "512x512" if number % 2 else "630x630",
            "slices": str(39 + number),
            "spacing mm": "0.711,0.711,1" if number % 2 else "unknown",
            "values": f"-{number} to 255",
            "lung": str(30 + number),
            "to do": str(30 + number),
            "warnings": "offset" if number == 7 else "-",
        }
        for number in range(count)
    ]


def table(count: int = 20) -> pd.DataFrame:
    return pd.DataFrame(rows(count), columns=COLUMNS)


def test_the_whole_table_is_printed_without_a_terminal(capsys):
    print_table(rows())
    lines = capsys.readouterr().out.splitlines()
    assert lines == table_lines(table(), 1000)
    assert len(lines) == 21
    for line, row in zip(lines[1:], rows(), strict=True):
        assert all(text in line for text in row.values())


def test_twenty_volumes_fit_a_terminal_of_80_columns(monkeypatch, capsys):
    monkeypatch.setattr(dry_run_table.sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((80, 24)))
    print_table(rows())
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24
    assert max(map(len, lines)) <= 80
    # The same in all rows.
    assert lines[0] == "all: window -600,1500; labels 1, 2; faults none"
    # Names keep the end, where they differ.
    assert len({line.split()[0] for line in lines[-20:]}) == 20
    for name in ("slices", "lung", "to do", "warnings"):
        assert name in lines[-21]
    assert lines[-13].endswith("offset")


def test_a_table_that_fits_is_not_changed():
    whole = table_lines(table())
    width = max(map(len, whole))
    assert table_lines(table(), width) == whole
    assert table_lines(table(), width - 1) != whole


def test_what_is_left_out_is_named():
    lines = table_lines(table(), 60)
    assert max(map(len, lines)) <= 60
    left_out = lines[1].removeprefix("too narrow for ").partition(";")[0].split(", ")
    assert "masks" in left_out
    assert lines[1].endswith("; `| cat` shows all")
    header = lines[-21]
    assert not [name for name in left_out if name in header]


def test_one_row_has_nothing_in_common():
    assert table_lines(table(1), 80)[0].startswith(("image", "too narrow for"))


@pytest.mark.parametrize("width", [1, 40, 70, 80, 100, 150])
@pytest.mark.parametrize("count", [1, 2, 20])
def test_every_row_is_there_in_any_width(width, count):
    lines = table_lines(table(count), width)
    for number, line in enumerate(lines[-count:]):
        assert line.split()[0].endswith(f"{number % 10}_85914_0")
    if width >= 70:
        assert max(map(len, lines)) <= width


@pytest.mark.parametrize("count", [1, 3])
def test_cells_are_below_their_heading(count):
    lines = table_lines(table(count))
    for name in ("size", "lung", "faults"):
        place = lines[0].index(f" {name}") + 1
        for line, text in zip(lines[1:], table(count)[name], strict=True):
            assert line[place:].startswith(text)
