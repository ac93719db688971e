import sys

import pytest

from sam_lungs.utils import progress
from sam_lungs.utils.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that stands still until it is set."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_away_from_a_terminal_it_is_a_line_a_minute_and_one_at_the_end(clock, capsys):
    with Progress("image_a", 10, done=2) as told:
        for _ in range(5):
            clock[0] += 25
            told.update(remark="mean Dice 0.9500")
        said = capsys.readouterr()
        assert said.out == ""
        assert said.err == "image_a: 5 of 10 slices, 125 s left, mean Dice 0.9500\n"
        told.update(3)
    assert capsys.readouterr().err == "image_a: 10 of 10 slices, 0 s left\n"


def test_nothing_done_is_nothing_said(clock, capsys):
    with Progress("image_a", 10, done=10):
        pass
    assert capsys.readouterr().err == ""


def test_work_that_breaks_off_says_how_far_it_came(clock, capsys):
    def break_off():
        with Progress("phantoms", 3, unit="volume") as told:
            told.update()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        break_off()
    assert capsys.readouterr().err == "phantoms: 1 of 3 volumes, 0 s left\n"


def test_on_a_terminal_it_is_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("image_a", 10, done=2) as told:
        for _ in range(8):
            told.update(remark="mean Dice 0.9500")
    last = capsys.readouterr().err.split("\r")[-1]
    assert last.startswith("image_a: 100%")
    assert "10/10" in last
    assert "mean Dice 0.9500" in last
