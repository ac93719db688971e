"""The recipes of the container images, without building them."""

import re
import shlex

from conftest import ROOT

from sam_lungs.segmenters.checkpoints import CHECKPOINTS

DOCKERFILE = (ROOT / "Dockerfile").read_text()
APPTAINER = (ROOT / "apptainer.def").read_text()


def section(name: str) -> list[list[str]]:
    """Return the words of each line of a section of the Apptainer recipe."""
    text = re.search(rf"^%{name}\n(.*?)(?=^%|\Z)", APPTAINER, re.MULTILINE | re.DOTALL)[1]
    return [shlex.split(line, comments=True) for line in text.splitlines() if line.strip()]


def docker(keyword: str) -> list[list[str]]:
    """Return the words of each instruction of a kind."""
    return [shlex.split(line) for line in re.findall(rf"^{keyword} (.*)", DOCKERFILE, re.MULTILINE)]


def test_copied_files_exist():
    copied = [path for *paths, _ in docker("COPY") for path in paths]
    in_apptainer = [path for path, _ in section("files")]
    for path in copied + in_apptainer:
        assert (ROOT / path).exists(), path
    # Docker copies everything; the other recipe lists what the commands need.
    assert "." in copied
    needed = {"sam_lungs", "scripts", "requirements.txt"} | {
        each.name for each in ROOT.glob("*.py")
    }
    needed.add(f"checkpoints/{CHECKPOINTS['compact'].file_name}")
    assert set(in_apptainer) == needed


def test_the_environment_is_made_by_the_setup_script():
    """The only command of both recipes, see test_shell_scripts.py."""
    assert docker("RUN") == [["scripts/setup.sh", "$SETUP_OPTIONS"]]
    assert docker("ARG") == [["SETUP_OPTIONS=--cpu"]]
    assert section("post") == [["cd", "/sam-lungs"], ["scripts/setup.sh"]]
    python = "/sam-lungs/.venv/bin/python"
    assert docker("ENTRYPOINT") == [[f"[{python}]"]]
    assert section("runscript") == [["exec", python, "$@"]]
    base = "python:3.12-slim"
    assert docker("FROM") == [[base]]
    assert f"\nFrom: {base}\n" in APPTAINER


def test_docker_leaves_out_what_git_leaves_out():
    """Otherwise gigabytes of weights, data and results would be sent to the build."""
    lines = {
        line.removeprefix("**/").rstrip("/")
        for line in (ROOT / ".dockerignore").read_text().split()
    }
    assert lines >= {line.rstrip("/") for line in (ROOT / ".gitignore").read_text().split()}
