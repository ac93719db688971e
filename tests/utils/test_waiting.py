import contextlib
import io
import subprocess
import sys
import time

import pytest
from conftest import ROOT

from sam_lungs.utils import waiting


def test_short_work_is_not_announced(capsys):
    with waiting.waiting("loading"):
        pass
    time.sleep(0.01)
    assert capsys.readouterr() == ("", "")


def test_long_work_is_announced_once_while_it_lasts(monkeypatch, capsys):
    monkeypatch.setattr(waiting, "SECONDS", 0.02)
    with waiting.waiting("loading vit_l"):
        end = time.monotonic() + 10
        while not (shown := capsys.readouterr()).err and time.monotonic() < end:
            time.sleep(0.01)
        time.sleep(0.1)
    assert shown == ("", "loading vit_l ...\n")
    assert capsys.readouterr() == ("", "")


def test_nothing_is_printed_after_an_error_and_nothing_into_a_redirected_stream(
    monkeypatch, capsys
):
    monkeypatch.setattr(waiting, "SECONDS", 0.05)
    inner = io.StringIO()
    with pytest.raises(ValueError, match="wrong"), waiting.waiting("loading"):
        raise ValueError("wrong")
    with waiting.waiting("loading"), contextlib.redirect_stderr(inner):
        time.sleep(0.3)
    assert inner.getvalue() == ""
    assert capsys.readouterr().err == "loading ...\n"


@pytest.mark.parametrize("script", ["process_image.py", "explore_prompts.py map"])
def test_loading_pytorch_is_announced(tmp_path, script):
    """torch is replaced by a module that takes 0.3 seconds, and the 2 seconds by 0.1."""
    (tmp_path / "torch.py").write_text("import time\ntime.sleep(0.3)\nraise SystemExit(3)\n")
    start = "import runpy, sys; from sam_lungs.utils import waiting; waiting.SECONDS = 0.1;"
    start += " sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    name, *kind = script.split()
    done = subprocess.run(
        [sys.executable, "-c", start, ROOT / name, *kind, "-i", "a.nii", "-m", "b.nii"],
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 3, done.stderr
    assert done.stderr == "loading PyTorch ...\n"
