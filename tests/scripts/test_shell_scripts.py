"""The shell scripts, run in a copy of the project.

Python and conda are replaced by small programs that record their arguments.
"""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from conftest import ROOT, chest, save_nifti

from sam_lungs.data.arrays import is_converted
from sam_lungs.prompts.protocols import PROTOCOLS
from sam_lungs.utils.files import sha256_of

SCRIPTS = sorted(ROOT.glob("scripts/*.sh"))
SHELL_FILES = [*SCRIPTS, ROOT / ".ci/run"]
CHECKPOINTS = "sam_lungs.segmenters.checkpoints"
RUN_CONFIGURATIONS = sorted(ROOT.glob(".run/*.run.xml"))

IMAGES = "COVID-19-CT-Seg_20cases"
MASKS = "Lung_Mask"
VOLUMES = [f"volume_{number:03}" for number in range(1, 21)]


class Tree:
    """A copy of the shell side of the project, in a folder with a space in its name."""

    def __init__(self, folder: Path):
        self.root = folder / "a project"
        self.bin = folder / "stand ins"
        self.calls_log = folder / "calls"
        for new in (self.root, self.bin):
            new.mkdir()
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        shutil.copytree(ROOT / ".ci", self.root / ".ci")
        shutil.copy(ROOT / "environment.yml", self.root)
        (self.root / "requirements.txt").write_text("# nothing\n")
        (self.root / "requirements-dev.txt").write_text("-r requirements.txt\n# no more\n")
        (self.root / "requirements-workflow.txt").write_text("# nothing\n")
        (self.root / "working_data").mkdir()
        # python3 is the tests' own Python, and there is no conda.
        self.executable("python3", f'exec "{sys.executable}" "$@"')
        path = [d for d in os.environ["PATH"].split(os.pathsep) if not Path(d, "conda").exists()]
        self.environment = {**os.environ, "PATH": os.pathsep.join([str(self.bin), *path])}
        for name in ("PYTHON", "PYTHONPATH", "VIRTUAL_ENV"):
            self.environment.pop(name, None)
        for name in ("SAM_LUNGS_REAL_DATA", "SAM_LUNGS_SLURM_TEST"):
            self.environment.pop(name, None)

    def executable(self, path, body: str) -> Path:
        """Write a bash program; `path` is relative to the first folder of PATH."""
        program = self.bin / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/usr/bin/env bash\n{body}\n")
        program.chmod(0o755)
        return program

    def recorder(self, path, rest: str = "") -> Path:
        """Write a bash program that adds its name, working directory and arguments to `calls`."""
        write = f"{{ echo {shlex.quote(str(path))}; pwd; printf '%s\\n' \"$@\"; echo; }}"
        return self.executable(path, f"{write} >>{shlex.quote(str(self.calls_log))}\n{rest}")

    @property
    def calls(self) -> list[list[str]]:
        """Every recorded call: name, working directory, arguments."""
        text = self.calls_log.read_text() if self.calls_log.exists() else ""
        return [call.split("\n") for call in text.split("\n\n")[:-1]]

    def run(self, script, *arguments, cwd=None, **environment):
        return subprocess.run(
            [self.root / script, *arguments],
            cwd=cwd or self.root,
            env={**self.environment, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=50,
        )

    def start(self, script, *arguments, **environment):
        """Start a script, and return the process when its Python has printed "started"."""
        running = subprocess.Popen(
            [self.root / script, *arguments],
            env={**self.environment, **environment},
            stdout=subprocess.PIPE,
            text=True,
            # A shell that starts the tests in the background ignores SIGINT.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        assert any(line == "started\n" for line in running.stdout)
        return running


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def assert_one_error(run, *words):
    """Assert exit status 1 and one error line that has these words."""
    assert run.returncode == 1, run.stderr
    lines = [line for line in run.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, run.stderr
    for word in words:
        assert word in lines[0]


def succeeded(run):
    assert run.returncode == 0, run.stdout + run.stderr
    return run


# The files themselves


@pytest.mark.parametrize("path", SHELL_FILES, ids=lambda path: path.name)
def test_shell_files_are_valid(path):
    text = path.read_bytes().decode()
    assert "\r" not in text
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert "\nset -euo pipefail\n" in text
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_help_prints_the_usage_and_does_nothing_else(tree, tmp_path, path):
    python = tree.recorder("my python")
    for option in ("--help", "-h"):
        run = tree.run(f"scripts/{path.name}", "a", option, cwd=tmp_path, PYTHON=str(python))
        assert succeeded(run).stderr == ""
        assert "usage: scripts/" in run.stdout or path.name == "project.sh"
        assert "#" not in run.stdout
    assert tree.calls == []


# PyCharm's run configurations


def options_of(path: Path) -> dict[str, str]:
    options = ET.fromstring(path.read_text()).iter("option")
    return {option.get("name"): option.get("value") for option in options}


@pytest.mark.parametrize("path", RUN_CONFIGURATIONS, ids=lambda path: path.name)
def test_run_configurations_name_existing_files(path):
    text = path.read_bytes().decode()
    assert "\r" not in text
    options = options_of(path)
    if "SCRIPT_PATH" in options:
        target = options["SCRIPT_PATH"]
        folder = options["SCRIPT_WORKING_DIRECTORY"]
    else:
        target = options.get("SCRIPT_NAME") or options["_new_target"].strip('"')
        folder = options["WORKING_DIRECTORY"]
        assert '<module name="sam-lungs" />' in text
        # The project's interpreter.
        assert (options["SDK_HOME"], options["IS_MODULE_SDK"]) == ("", "false")
    assert folder == "$PROJECT_DIR$"
    if options.get("MODULE_MODE") == "true":
        target = f"$PROJECT_DIR$/{target.replace('.', '/')}.py"
    assert Path(target.replace("$PROJECT_DIR$", str(ROOT))).exists()


@pytest.mark.parametrize(
    "path",
    [path for path in RUN_CONFIGURATIONS if "PARAMETERS" in options_of(path)],
    ids=lambda path: path.name,
)
def test_run_configurations_use_existing_options(run, path):
    options = options_of(path)
    help_text = run(options["SCRIPT_NAME"].removeprefix("$PROJECT_DIR$/"), "--help").stdout
    for word in shlex.split(options["PARAMETERS"]):
        if word.startswith("--"):
            assert word in help_text.replace(",", " ").split()
        elif "/" in word:
            assert word.split("/")[0] in ("datasets", "working_data")


def test_every_script_has_a_run_configuration():
    texts = "".join(path.read_text() for path in RUN_CONFIGURATIONS)
    helpers = {"project.sh", "download_checkpoints.sh", "compare_pythons.sh"}
    for path in [*SCRIPTS, *ROOT.glob("*.py")]:
        assert path.name in texts or path.name in helpers


# Which Python runs the project


def conda_lists(name: str, folder: Path) -> str:
    """Return the body of a conda whose `env list` has an environment of that name."""
    return f"""
case "$1 $2" in
  "env list") printf '# conda environments:\\n#\\nbase  * /c\\n{name}   %s\\nsample  /c/s\\n' \
    {shlex.quote(str(folder))} ;;
esac
"""


def test_python_is_found_in_order(tree, tmp_path):
    """Each Python that is added takes precedence over the earlier ones."""
    script = "scripts/download_model_checkpoints.sh"
    assert_one_error(tree.run(script, cwd=tmp_path), "scripts/setup.sh")

    venv = tree.recorder("../a project/.venv/bin/python")
    succeeded(tree.run(script, "vit_b", cwd=tmp_path))
    module = ["-m", CHECKPOINTS]
    assert tree.calls == [[str(venv.relative_to(tree.bin)), str(tree.root), *module, "vit_b"]]

    # Another conda environment, and an environment `sam` without Python.
    folder = tmp_path / "conda envs/sam"
    for name in ("samuel", "sam"):
        tree.executable("conda", conda_lists(name, folder))
        succeeded(tree.run(script))
        assert tree.calls[-1][0] == str(venv.relative_to(tree.bin))

    tree.recorder(folder / "bin/python")
    for active in ("", " *", " +"):
        tree.executable("conda", conda_lists(f"sam{active}", folder))
        succeeded(tree.run(script, "vit_l", "vit_h"))
        assert tree.calls[-1] == [
            *(str(folder / "bin/python"), str(tree.root), *module),
            *("vit_l", "vit_h"),
        ]

    python = tree.recorder("my python")
    succeeded(tree.run(script, PYTHON=str(python)))
    assert tree.calls[-1] == ["my python", str(tree.root), *module]


def test_relative_PYTHON_is_relative_to_the_callers_folder(tree):
    tree.recorder("my python")
    script = "scripts/download_model_checkpoints.sh"
    succeeded(tree.run(script, cwd=tree.bin, PYTHON="./my python"))
    assert tree.calls[0][1] == str(tree.root)
    assert_one_error(tree.run(script, PYTHON="./my python"), "PYTHON", "my python")


@pytest.mark.parametrize(
    ("cwd", "script"),
    [("scripts", "./test.sh"), (".", "scripts/test.sh"), ("scripts", "../scripts/test.sh")],
)
def test_scripts_run_from_any_folder(tree, cwd, script):
    python = tree.recorder("my python")
    environment = {**tree.environment, "PYTHON": str(python), "CDPATH": str(tree.root.parent)}
    subprocess.run([script, "-k", "a b"], cwd=tree.root / cwd, env=environment, check=True)
    (call,) = tree.calls
    assert call[:4] == ["my python", str(tree.root), "-m", "pytest"]
    assert call[-2:] == ["-k", "a b"]


def test_download_checkpoints_runs_download_model_checkpoints(tree):
    python = tree.recorder("my python")
    succeeded(tree.run("scripts/download_checkpoints.sh", "vit_b", PYTHON=str(python)))
    assert tree.calls == [
        ["my python", str(tree.root), "-m", CHECKPOINTS, "vit_b"],
    ]


# scripts/setup.sh


def test_setup_creates_a_venv_once_and_updates_it_when_requirements_change(tree):
    python = tree.root / ".venv/bin/python"
    succeeded(tree.run("scripts/setup.sh", "requirements-dev.txt"))
    subprocess.run([python, "-m", "pip", "--version"], check=True, stdout=subprocess.DEVNULL)

    for requirements in ("requirements-dev.txt", "requirements.txt"):
        run = succeeded(tree.run("scripts/setup.sh", requirements))
        assert run.stdout == ".venv is up to date\n"

    (tree.root / "requirements.txt").write_text("./no such package\n")
    assert tree.run("scripts/setup.sh").returncode != 0
    # After a failed update the environment counts as out of date, even for the old requirements.
    (tree.root / "requirements.txt").write_text("# nothing\n")
    assert "is ready" in succeeded(tree.run("scripts/setup.sh")).stdout
    assert "up to date" in succeeded(tree.run("scripts/setup.sh")).stdout


@pytest.mark.parametrize("missing", ["pip", "version_info"])
def test_setup_replaces_a_broken_or_old_venv(tree, missing):
    tree.executable("../a project/.venv/bin/python", f"[[ $* != *{missing}* ]]")
    tree.recorder("python3")
    tree.run("scripts/setup.sh")
    assert tree.calls[-1][2:] == ["-m", "venv", "--clear", ".venv"]


def test_setup_uses_PYTHON_as_it_is(tree):
    python = tree.recorder("my python")
    run = succeeded(tree.run("scripts/setup.sh", PYTHON=str(python)))
    assert str(python) in run.stdout
    assert tree.calls == []
    assert not (tree.root / ".venv").exists()


CONDA = """
case "$1 $2" in
  "env list") ls "$ENVS" | sed "s|$|    $ENVS/sam|" ;;
  "env create" | "env update")
    mkdir -p "$ENVS/sam/bin"
    ln -sf "$CONDA_PYTHON" "$ENVS/sam/bin/python" ;;
esac
"""


@pytest.fixture
def conda(tree, tmp_path):
    """A replacement for conda, with a recording Python in its environment `sam`."""
    envs = tmp_path / "my envs"
    envs.mkdir()
    tree.environment["ENVS"] = str(envs)
    stamps = shlex.quote(str(envs / "sam/made_from"))
    python = tree.recorder("conda python", f"[[ $* != *sysconfig* ]] || echo {stamps}")
    tree.environment["CONDA_PYTHON"] = str(python)
    return tree.recorder("conda", CONDA)


def changes(tree) -> list[str]:
    """Return the calls that change an environment or run something in it, and forget them."""
    words = [" ".join([call[0], *call[2:]]) for call in tree.calls]
    tree.calls_log.unlink()
    return [w for w in words if "sysconfig" not in w and "env list" not in w]


def test_setup_creates_and_updates_the_conda_environment(tree, conda):
    pip = "conda python -m pip install --disable-pip-version-check --requirement"
    environment = "--name sam --file environment.yml"

    succeeded(tree.run("scripts/setup.sh"))
    assert changes(tree) == [f"conda env create {environment}", f"{pip} requirements.txt"]
    succeeded(tree.run("scripts/setup.sh"))
    assert changes(tree) == []
    succeeded(tree.run("scripts/test.sh", "-x"))
    *setup, pytest_call = changes(tree)
    assert setup == [f"conda env update {environment}", f"{pip} requirements-dev.txt"]
    assert pytest_call.startswith("conda python -m pytest ")
    succeeded(tree.run("scripts/setup.sh"))
    assert changes(tree) == []
    assert not (tree.root / ".venv").exists()


def test_setup_puts_the_workflow_into_a_venv_of_its_own(tree, conda):
    for words in ("is ready", "is up to date"):
        run = succeeded(tree.run("scripts/setup.sh", "--workflow"))
        assert run.stdout.endswith(f".venv-workflow {words}\n")
    assert (tree.root / ".venv-workflow/bin/python").exists()
    assert not (tree.root / ".venv").exists()
    assert not list(Path(tree.environment["ENVS"]).iterdir())


def test_setup_explains_how_to_replace_a_conda_environment(tree, conda):
    (Path(tree.environment["ENVS"]) / "sam").mkdir()
    tree.executable("conda", CONDA.replace("mkdir -p", "exit 1 #"))
    assert_one_error(tree.run("scripts/setup.sh"), "conda env remove --name sam")


def test_setup_cpu_adds_the_index_of_pytorchs_cpu_builds(tree, conda):
    index = "https://download.pytorch.org/whl/cpu"
    tree.recorder("conda python", f"echo $PIP_EXTRA_INDEX_URL >>{shlex.quote(str(tree.calls_log))}")
    tree.run("scripts/setup.sh")
    assert index not in tree.calls_log.read_text()
    tree.run("scripts/setup.sh", "--cpu", "requirements-dev.txt", PIP_EXTRA_INDEX_URL="http://mine")
    assert f"http://mine {index}" in tree.calls_log.read_text()


def test_setup_names_the_missing_program(tree):
    for name in ("python3.11", "python3.12", "python3.13"):
        tree.executable(name, "exit 1")
    tree.executable("python3", "[[ $2 != *version_info* ]]")
    assert_one_error(tree.run("scripts/setup.sh"), "3.11")
    tree.executable("python3", "[[ $2 != *ensurepip* ]]")
    assert_one_error(tree.run("scripts/setup.sh"), "python3-venv")
    assert_one_error(tree.run("scripts/setup.sh", "no.txt"), "no.txt")
    assert_one_error(tree.run("scripts/setup.sh", "--gpu"), "--gpu")


def test_setup_finds_a_newer_python_than_python3(tree):
    tree.executable("python3", "exit 1")
    tree.executable("python3.13", "exit 1")
    tree.recorder("python3.12")
    tree.run("scripts/setup.sh")
    assert tree.calls[-1][0] == "python3.12"
    assert tree.calls[-1][2:] == ["-m", "venv", "--clear", ".venv"]


# .ci/run


@pytest.mark.parametrize(
    ("output", "status", "expected"),
    [
        ("===== 3 passed, 2 skipped in 0.12s =====", 0, 0),
        ("===== \033[32m3 passed\033[0m in 61.20s (0:01:01) =====", 0, 0),
        ("2 workers [3 items]\n...\n===== 3 passed in 0.42s =====", 0, 0),
        ("===== 5 skipped in 0.12s =====", 0, 1),
        ("===== 2 xpassed in 0.12s =====", 0, 1),
        ("===== no tests ran in 0.01s =====", 5, 5),
        ("===== 1 failed, 3 passed in 0.12s =====", 1, 1),
    ],
)
def test_ci_fails_when_no_test_passed(tree, output, status, expected):
    python = tree.recorder("my python")
    tree.executable("../a project/scripts/test.sh", f"echo {shlex.quote(output)}; exit {status}")
    run = tree.run(".ci/run", cwd="/", PYTHON=str(python))
    assert run.returncode == expected
    assert output in run.stdout
    assert [" ".join(call[2:]) for call in tree.calls] == [
        "-m ruff check",
        "-m ruff format --check",
    ]


def test_ci_runs_the_slurm_test_only_where_it_is_asked_for(tree):
    python = tree.recorder("my python")
    tree.executable("../a project/scripts/test.sh", "echo 1 passed in 0.1s")
    for asked, last in (("", "-m ruff format --check"), ("1", "tests/workflow/slurm.py")):
        run = succeeded(tree.run(".ci/run", PYTHON=str(python), SAM_LUNGS_SLURM_TEST=asked))
        assert ("SLURM test: skipped" in run.stdout) == (not asked)
        assert " ".join(tree.calls[-1][2:]) == last


def test_ci_fails_on_style_before_the_tests(tree):
    python = tree.executable("my python", "[[ $* != *format* ]]")
    tree.recorder("../a project/scripts/test.sh")
    assert tree.run(".ci/run", PYTHON=str(python)).returncode == 1
    assert tree.calls == []


def test_ci_uses_the_real_data_beside_the_checkout(tree):
    python = tree.executable("my python", "")
    print_it = "echo ${SAM_LUNGS_REAL_DATA-unset}; echo 1 passed in 0.1s"
    tree.executable("../a project/scripts/test.sh", print_it)

    def real_data(**environment):
        run = succeeded(tree.run(".ci/run", PYTHON=str(python), **environment))
        return run.stdout.splitlines()[-2]

    assert real_data() == "unset"
    data = tree.root.parent / "shared/data"
    data.mkdir(parents=True)
    assert real_data() == str(data)
    assert real_data(SAM_LUNGS_REAL_DATA="/mine") == "/mine"
    assert real_data(SAM_LUNGS_REAL_DATA="") == ""


# scripts/nifti_to_numpy.sh


def make_dataset(tree):
    for folder in (IMAGES, MASKS):
        for name in VOLUMES:
            volume = tree.root / "datasets/zenodo" / folder / f"{name}.nii.gz"
            volume.parent.mkdir(parents=True, exist_ok=True)
            volume.touch()


def test_nifti_to_numpy_converts_the_dataset_in_one_call(tree, tmp_path):
    make_dataset(tree)
    python = tree.recorder("my python", "exit 7")
    script = "scripts/nifti_to_numpy.sh"
    run = tree.run(script, "--orientation", "a b", cwd=tmp_path, PYTHON=str(python))
    assert run.returncode == 7
    pairs = [
        (f"datasets/zenodo/{folder}/{name}.nii.gz", f"working_data/{kind}_{name}.npy")
        for folder, kind in ((IMAGES, "image"), (MASKS, "masks"))
        for name in VOLUMES
    ]
    volumes, arrays = zip(*pairs, strict=True)
    (call,) = tree.calls
    assert call[1] == str(tree.root)
    assert call[2:] == [
        *("nifti_to_numpy.py", "--input_file_path", *volumes, "--output_file_path", *arrays),
        *("--orientation", "a b"),
    ]


def test_nifti_to_numpy_replaces_broken_and_differently_oriented_arrays(tree):
    """Runs the real Python on a dataset of two volumes, one of them broken."""
    for folder in (IMAGES, MASKS):
        (tree.root / "datasets/zenodo" / folder).mkdir(parents=True)
    for name in ("nifti_to_numpy.py", "sam_lungs"):
        (tree.root / name).symlink_to(ROOT / name)
    image = save_nifti(tree.root / "datasets/zenodo" / IMAGES / "a.nii.gz", chest()[0])
    masks = save_nifti(tree.root / "datasets/zenodo" / MASKS / "a.nii.gz", chest()[1])
    (tree.root / "datasets/zenodo" / MASKS / "broken.nii.gz").write_bytes(masks.read_bytes()[:-9])
    arrays = [tree.root / f"working_data/{kind}_a.npy" for kind in ("image", "masks")]
    arrays[0].write_bytes(b"half")

    def convert(*options):
        run = tree.run("scripts/nifti_to_numpy.sh", *options, PYTHON=sys.executable)
        assert_one_error(run, f"{MASKS}/broken.nii.gz")
        return [line.partition(" working_data/")[0] for line in run.stdout.splitlines()]

    assert convert() == ["wrote", "wrote"]
    assert convert() == ["already converted:", "already converted:"]
    os.truncate(arrays[1], 500)
    assert convert() == ["already converted:", "wrote"]
    assert convert("--orientation", "radiological") == ["wrote", "wrote"]
    assert is_converted(sha256_of(image), arrays[0], "radiological")
    assert is_converted(sha256_of(masks), arrays[1], "radiological")


def test_nifti_to_numpy_names_the_download_script_if_the_dataset_is_missing(tree):
    run = tree.run("scripts/nifti_to_numpy.sh", PYTHON=sys.executable)
    assert_one_error(run, "scripts/download_dataset.sh")
    make_dataset(tree)
    shutil.rmtree(tree.root / "datasets/zenodo" / MASKS)
    run = tree.run("scripts/nifti_to_numpy.sh", PYTHON=sys.executable)
    assert_one_error(run, MASKS, "scripts/download_dataset.sh")
    assert run.stdout == ""


# scripts/process_images.sh and paper.sh


@pytest.mark.parametrize(
    ("script", "dataset", "folder"),
    [
        ("process_images", "paper", "working_data/results"),
        ("process_montgomery", "montgomery", "working_data/montgomery/results"),
    ],
)
def test_process_scripts_run_the_study_in_one_call(tree, script, dataset, folder):
    python = tree.recorder("my python", "exit 7")
    options = ["--precision", "a b", "--prompts=paper,no_box"]
    assert tree.run(f"scripts/{script}.sh", *options, PYTHON=str(python)).returncode == 7
    (call,) = tree.calls
    assert call[2:] == [
        *("process_image.py", "--dataset", f"datasets/{dataset}.yml"),
        *("--output_folder", folder, "--report", *options),
    ]


RECORD_CALL = "import json, sys\nprint('CALL', json.dumps(sys.argv))\n"


def figure_calls(tree, *arguments: str) -> list[list[str]]:
    """Run paper.sh with stand-ins for the scripts that it calls; return their arguments."""
    (tree.root / "process_image.py").write_text(RECORD_CALL)
    summary = tree.root / "sam_lungs/summary"
    summary.mkdir(parents=True)
    (summary / "figure_3.py").write_text(RECORD_CALL)
    run = succeeded(tree.run("scripts/paper.sh", *arguments, PYTHON=sys.executable))
    lines = [line for line in run.stdout.splitlines() if line.startswith("CALL ")]
    return [json.loads(line.removeprefix("CALL ")) for line in lines]


@pytest.mark.parametrize(
    ("figure", "slices", "protocols", "layers"),
    [
        (
            1,
            [("coronacases_001", "122"), ("radiopaedia_10_85902_3", "171")],
            "paper",
            "mask,contours,points,box",
        ),
        (2, [("coronacases_001", "98")], "centroid_points,points", "points"),
        (4, [("coronacases_001", "85")], "paper,negative_45", "mask,contours,points,box"),
        (
            5,
            [("coronacases_001", "177")],
            "centroid_points,points,no_box,paper",
            "mask,contours,points,box",
        ),
    ],
)
def test_figures_draw_the_slices_of_the_paper(tree, figure, slices, protocols, layers):
    calls = figure_calls(tree, f"figure_{figure}", "--model", "vit_b")
    assert len(calls) == len(slices)
    for call, (volume, index) in zip(calls, slices, strict=True):
        after = {option: call[call.index(option) + 1] for option in call if option.startswith("-")}
        assert after["-i"] == f"working_data/image_{volume}.npy"
        assert after["-m"] == f"working_data/masks_{volume}.npy"
        assert after["--slice"] == index
        assert after["--output_folder"] == f"working_data/paper/figure_{figure}/results"
        assert after["--prompts"] == protocols
        assert set(protocols.split(",")) <= PROTOCOLS.keys()
        assert after["--draw"] == layers
        assert "--debug" in call
        assert call[-2:] == ["--model", "vit_b"]


def test_figure_3_draws_the_box_plots(tree):
    (call,) = figure_calls(tree, "figure_3", "-r", "a folder")
    assert call[1:] == ["--output_folder", "working_data/paper/figure_3", "-r", "a folder"]


def test_check_reproduction_runs_the_module(tree):
    python = tree.recorder("my python", "exit 1")
    options = ["--checkpoint", "a file"]
    run = tree.run("scripts/check_reproduction.sh", *options, PYTHON=str(python))
    assert run.returncode == 1
    (call,) = tree.calls
    assert call[2:] == ["-m", "sam_lungs.summary.reproduction", *options]


def test_table_1_is_the_study(tree):
    python = tree.recorder("my python")
    succeeded(tree.run("scripts/paper.sh", "table_1", "--model", "vit_b", PYTHON=str(python)))
    (call,) = tree.calls
    assert call[2] == "process_image.py"
    assert call[-3:] == ["--report", "--model", "vit_b"]


def test_paper_lists_its_names(tree):
    for arguments in ([], ["figure_6"]):
        assert_one_error(tree.run("scripts/paper.sh", *arguments), "table_1", "figure_5", "--help")


# Signals


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("script", ["process_images.sh", "demo.sh"])
def test_signals_reach_python_at_once(tree, tmp_path, conda, script, number, status):
    """With a conda environment: `conda run` would not forward the signal."""
    stopped = tmp_path / "stopped"
    stop = f"echo >{shlex.quote(str(stopped))}; exit {status}"
    study = tree.executable(
        "study", f"trap {shlex.quote(stop)} INT TERM\necho started\nsleep 30 & wait"
    )
    python = Path(tree.environment["ENVS"]) / "sam/bin/python"
    python.parent.mkdir(parents=True)
    if script == "demo.sh":
        # demo.py runs several commands, each in a process of its own.
        python.symlink_to(sys.executable)
        (tree.root / "scripts/demo.py").write_text(
            f"from commands import run\nrun([{str(study)!r}])\n"
        )
        tree.executable("../a project/scripts/setup.sh", "")
    else:
        python.symlink_to(study)

    with tree.start(f"scripts/{script}") as running:
        running.send_signal(number)
        assert running.wait(timeout=50) == status
        deadline = time.monotonic() + 50
        while not stopped.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)


# scripts/download_*.sh


@pytest.mark.parametrize(
    ("script", "module"),
    [
        ("download_dataset", "data.zenodo"),
        ("download_model_checkpoints", "segmenters.checkpoints"),
        ("download_checkpoints", "segmenters.checkpoints"),
    ],
)
@pytest.mark.parametrize("status", [0, 1, 130])
def test_download_scripts_run_the_modules(tree, tmp_path, script, module, status):
    python = tree.recorder("my python", f"exit {status}")
    options = ["--mirror", "http://127.0.0.1/a folder"]
    run = tree.run(f"scripts/{script}.sh", *options, cwd=tmp_path, PYTHON=str(python))
    assert run.returncode == status
    assert tree.calls == [["my python", str(tree.root), "-m", f"sam_lungs.{module}", *options]]


def test_download_dataset_chooses_the_x_rays_by_their_name(tree):
    python = tree.recorder("my python")
    succeeded(tree.run("scripts/download_dataset.sh", "montgomery", "--mirror", "u", PYTHON=python))
    (call,) = tree.calls
    assert call[2:] == ["-m", "sam_lungs.data.montgomery", "--mirror", "u"]
