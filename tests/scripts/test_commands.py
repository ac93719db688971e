"""Every command of the README and the docs, run on small synthetic files.

The commands of a page run in order in one folder, because they follow from each other.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from conftest import ROOT
from faults import Child

pytest.importorskip("highdicom")
pytest.importorskip("transformers")

from documented_inputs import write_inputs

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/*.md"))]
# Code blocks that are no commands: their language, or how they start.
OTHER_LANGUAGES = ("python", "yaml", "bibtex")
NO_COMMANDS = (
    *("nifti_to_numpy.py  ", "working_data/\n", "image_a: ", "case,", "--labels "),
    *("Jaccard index: ", "#!"),
)
CODE = re.compile(
    r"^```(?P<language>\w*)\n(?P<fenced>.*?)^```$"
    r"|(?P<indented>(?:^    \S[^\n]*\n)+)"
    # Scripts in sentences count only with arguments, in the first column of a table always.
    r"|^\| `(?P<step>scripts/\w+\.sh[^`\n]*)`"
    r"|(?<!## )`(?P<span>(?:python|scripts/\w+\.sh|conda|pip|docker|apptainer) [^`\n]*)`",
    re.MULTILINE | re.DOTALL,
)
# Commands that are not run here: how they start, and why.
NOT_RUN = {
    "scripts/setup.sh": "installs packages; see test_shell_scripts.py",
    "scripts/test.sh": "runs these tests",
    "scripts/demo.sh": "takes minutes; test_demo.py runs smaller phantoms",
    "scripts/download_": "downloads; see test_download.py",
    "scripts/check_reproduction.sh": "downloads; see test_reproduction.py",
    "scripts/train_compact_checkpoint.sh": "takes 80 minutes; see test_training.py",
    "scripts/paper.sh NAME": "NAME is one of the other commands",
    "python -m benchmarks.compact": "takes minutes",
    "python -m docs.options": "writes into the repository; see test_docs.py",
    "pip install": "downloads",
    "conda activate": "conda may not be installed",
    ".venv-workflow/bin/snakemake": "installed apart; see test_workflow.py",
    "docker": "needs Docker; see test_containers.py",
    "apptainer": "needs Apptainer; see test_containers.py",
    "jupyter": "opens a browser; see test_notebook.py",
}
# What is smaller here than on the page.
SMALLER = {"--slices 48": "--slices 4"}


def commands_of(page: Path) -> list[str]:
    """Return the commands of a page in order: lines of code blocks, and code in sentences."""
    commands = []
    for found in CODE.finditer(re.sub(r"\\\n\s*", "", page.read_text())):
        language, *codes = found.groups()
        code = textwrap.dedent(next(each for each in codes if each))
        if language not in OTHER_LANGUAGES and not code.startswith(NO_COMMANDS):
            commands += code.splitlines()
    return list(dict.fromkeys(command for command in commands if command))


def reason_not_to_run(command: str) -> str | None:
    return next((why for start, why in NOT_RUN.items() if command.startswith(start)), None)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("inputs") / "study"
    folder.mkdir()
    write_inputs(folder)
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    Sandbox(folder).run("scripts/nifti_to_numpy.sh")
    return folder


class Sandbox:
    """A folder in which commands run as in the project's root, with the compact model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # Records its arguments. A new Python would take seconds to import everything.
        self.calls = folder.parent / "calls"
        self.python = folder.parent / "python"
        record = "import json, sys; print(json.dumps(sys.argv[1:]))"
        self.python.write_text(
            f"#!/bin/sh\nexec '{sys.executable}' -c '{record}' \"$@\" >>'{self.calls}'\n"
        )
        self.python.chmod(0o755)

    def run(self, command: str) -> None:
        """Run a command of a page; fail with its output unless it succeeds."""
        for whole, part in SMALLER.items():
            command = command.replace(whole, part)
        program, *arguments = shlex.split(command, comments=True)
        if program == "python":
            return self._python(arguments)
        environment = {**os.environ, "PYTHON": str(self.python)}
        script = [str(self.folder / program), *arguments]
        subprocess.run(script, cwd=self.folder, env=environment, check=True, capture_output=True)
        self._python_calls()

    def _python_calls(self) -> None:
        while self.calls.exists():
            lines = self.calls.read_text().splitlines()
            self.calls.unlink()
            for line in lines:
                self._python(json.loads(line))

    def _python(self, arguments: list[str]) -> None:
        if arguments[0] == "-m":
            arguments = [f"{arguments[1].replace('.', '/')}.py", *arguments[2:]]
        script = ROOT / arguments[0]
        child = Child(self.folder, "tests/with_compact.py", self.python, script, *arguments[1:])
        assert child.wait() == 0, (arguments, child.streams())
        self._python_calls()


TO_RUN = {
    page: commands
    for page in PAGES
    if (commands := [each for each in commands_of(page) if not reason_not_to_run(each)])
}


@pytest.mark.parametrize("page", TO_RUN, ids=lambda page: page.stem)
def test_commands_run(page, inputs, tmp_path):
    sandbox = Sandbox(Path(shutil.copytree(inputs, tmp_path / inputs.name)))
    for command in TO_RUN[page]:
        sandbox.run(command)


def test_nothing_is_declared_in_vain():
    commands = [command for page in PAGES for command in commands_of(page)]
    for start in NOT_RUN:
        assert any(command.startswith(start) for command in commands), start
