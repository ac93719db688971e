import sys

import pytest

from sam_lungs.utils import progress
from sam_lungs.utils.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand, as `clock[0]`."""
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def test_without_a_terminal_it_prints_a_line_a_minute_and_one_at_the_end(clock, capsys):
    with Progress("image_a", 10, done=2) as shown:
        for _ in range(5):
            clock[0] += 25
            shown.update(remark="mean Dice 0.9500")
        streams = capsys.readouterr()
        assert streams.out == ""
        assert streams.err == "image_a: 5 of 10 slices, 125 s left, mean Dice 0.9500\n"
        shown.update(3)
    assert capsys.readouterr().err == "image_a: 10 of 10 slices, 0 s left\n"


def test_it_prints_nothing_when_no_step_is_completed(clock, capsys):
    with Progress("image_a", 10, done=10):
        pass
    assert capsys.readouterr().err == ""


def test_it_prints_the_count_when_an_exception_ends_the_work(clock, capsys):
    def fail():
        with Progress("phantoms", 3, unit="volume") as shown:
            shown.update()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert capsys.readouterr().err == "phantoms: 1 of 3 volumes, 0 s left\n"


def test_on_a_terminal_it_shows_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("image_a", 10, done=2) as shown:
        for _ in range(8):
            shown.update(remark="mean Dice 0.9500")
    last = capsys.readouterr().err.split("\r")[-1]
    assert last.startswith("image_a: 100%")
    assert "10/10" in last
    assert "mean Dice 0.9500" in last
