"""Every script and runnable module starts in a new Python process, or says in a line why not."""

import ast
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions

import pytest
from conftest import ROOT

import sam_lungs
from docs.options import COMMANDS

SCRIPTS = sorted(path.name for path in ROOT.glob("*.py"))
MODULES = sorted(name for name in COMMANDS.values() if name.startswith("sam_lungs."))
PROGRAMS = [*SCRIPTS, *MODULES, "docs.options", "benchmarks.encoder", "benchmarks.study"]


def start(program: str, *options: str) -> list[str]:
    """Return a command line, without Python, that runs a program in the project's root."""
    return [*options, program] if program.endswith(".py") else [*options, "-m", program]


@pytest.mark.parametrize("program", [*SCRIPTS, *MODULES])
def test_help_is_printed(program, tmp_path):
    """In an environment as poor as possible, and from a notebook of another Python."""
    done = subprocess.run(
        [sys.executable, "-W", "error", *start(program), "--help"],
        cwd=ROOT,
        env={"MPLBACKEND": "module://no_such_package.backend", "LC_ALL": "POSIX", "COLUMNS": "0"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert done.stderr == ""


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_packages_it_is_one_line(program):
    done = subprocess.run(  # -S: without site-packages
        [sys.executable, *start(program, "-S"), "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: packages are missing in this Python (torch, ")
    assert done.stderr.endswith("); run scripts/setup.sh\n")
    assert done.stderr.count("\n") == 1


def test_every_required_package_is_looked_for():
    distributions = packages_distributions()
    looked_for = {distributions[name][0].lower() for name in sam_lungs._PACKAGES}
    required = {
        line.partition(">")[0].partition("=")[0]
        for line in ROOT.joinpath("requirements.txt").read_text().splitlines()
        if not line.startswith("#")
    }
    assert {name.replace("_", "-") for name in looked_for} == required


@pytest.mark.parametrize("minor", [8, 9, 10])
def test_with_an_old_python_it_is_one_line(minor):
    python = shutil.which(f"python3.{minor}")
    if not python or subprocess.run([python, "-c", ""], capture_output=True).returncode:
        pytest.skip(f"Python 3.{minor} is not installed")
    for program in PROGRAMS:
        done = subprocess.run([python, *start(program)], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 1
        assert done.stderr == "error: Python 3.11 or newer is needed; run scripts/setup.sh\n"


def test_old_pythons_can_parse_what_runs_before_the_check():
    files = [f"{name.replace('.', '/')}.py" for name in PROGRAMS if not name.endswith(".py")]
    files += [*SCRIPTS, "sam_lungs/__init__.py", "benchmarks/__init__.py"]
    for name in files:
        ast.parse(ROOT.joinpath(name).read_text(), feature_version=(3, 8))


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
