import os
import pty
import sys

import pytest

from sam_lungs.utils import progress
from sam_lungs.utils.progress import Progress, StudyProgress


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


def test_one_step_is_singular(clock, capsys):
    with Progress("image_a", 1) as shown:
        shown.update()
    assert capsys.readouterr().err == "image_a: 1 of 1 slice, 0 s left\n"


def test_on_a_terminal_it_shows_a_bar(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with Progress("image_a", 10, done=2) as shown:
        for _ in range(8):
            shown.update(remark="mean Dice 0.9500")
    last = capsys.readouterr().err.split("\r")[-1]
    assert last.startswith("image_a: 100%")
    assert "10/10" in last
    assert "mean Dice 0.9500" in last


def test_a_study_prints_a_line_a_minute_whatever_the_number_of_volumes(clock, capsys):
    study = StudyProgress(22)
    study.skip(2)  # finished before, in no time
    for number in range(20):
        with Progress(f"image_{number}", 10, study=study) as shown:
            for _ in range(10):
                clock[0] += 1
                shown.update()
        study.update()
    study.close()
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "image_5: 10 of 10 slices, 0 s left, volume 8 of 22, 0:02:20 left",
        "image_11: 10 of 10 slices, 0 s left, volume 14 of 22, 0:01:20 left",
        "image_17: 10 of 10 slices, 0 s left, volume 20 of 22, 0:00:20 left",
        "20 volumes processed in 0:03:20, 2 skipped",
    ]


def test_what_an_earlier_run_did_of_a_volume_does_not_count_as_fast(clock):
    study = StudyProgress(3)
    assert str(study) == "volume 1 of 3"
    with Progress("image_a", 10, done=8, study=study) as shown:
        clock[0] += 6
        shown.update()
        # A tenth of a volume takes 6 s, and 2.1 volumes are left.
        assert str(study) == "volume 1 of 3, 0:02:06 left"


def test_the_only_volume_of_a_study_is_shown_without_it(clock, capsys):
    study = StudyProgress(1)
    with Progress("image_a", 2, study=study) as shown:
        shown.update(2)
    study.update()
    study.close()
    assert capsys.readouterr().err == "image_a: 2 of 2 slices, 0 s left\n"


def test_a_terminal_of_zero_columns_shows_the_bars(monkeypatch):
    reader, writer = pty.openpty()
    assert os.get_terminal_size(writer).columns == 0
    with os.fdopen(writer, "w") as terminal, monkeypatch.context() as patch:
        patch.setattr(sys, "stderr", terminal)
        study = StudyProgress(4)
        study.skip()
        with Progress("image_a", 4, study=study) as shown:
            shown.update(4, "mean Dice 0.9500")
        text = os.read(reader, 1 << 16).decode()
    os.close(reader)
    assert "volume 2 of 4" in text
    last = text.split("\r")[-2]
    assert last.startswith("image_a: 100%")
    assert "mean Dice 0.9500" in last
