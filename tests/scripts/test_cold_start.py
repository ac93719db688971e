"""Every script and runnable module starts in a new Python process."""

import subprocess
import sys

import pytest
from conftest import ROOT

SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
MODULES = ("segmenters.checkpoints", "data.zenodo", "synthetic.phantom", "synthetic.training")


@pytest.mark.parametrize("program", [*SCRIPTS, *MODULES])
def test_help_is_printed(program, tmp_path):
    started = [ROOT / program] if program.endswith(".py") else ["-m", f"sam_lungs.{program}"]
    done = subprocess.run(
        [sys.executable, "-W", "error", *started, "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert done.stderr == ""


# nifti_to_numpy.py lists the formats of the readers, which import nibabel.
@pytest.mark.parametrize(
    ("name", "packages"),
    [("process_image.py", "torch transformers nibabel yaml"), ("nifti_to_numpy.py", "torch")],
)
def test_help_imports_no_slow_packages(tmp_path, name, packages):
    look = "import sys; sys.argv = sys.argv[1:]; import runpy\n"
    look += "try: runpy.run_path(sys.argv[0], run_name='__main__')\n"
    look += f"except SystemExit: print([p for p in {packages.split()} if p in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", look, ROOT / name, "--help"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr
