"""The shell scripts, run as a user runs them, in a copy of the project's tree.

What is heavy or needs a network (the project's Python, conda, the dataset's server) is replaced
by a stand-in that writes down how it was called.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from conftest import ROOT, chest, save_nifti

from sam_lungs.data.volumes import is_converted
from sam_lungs.prompts.rules import PROTOCOLS

SHELL_FILES = [*sorted(ROOT.glob("scripts/**/*.sh")), ROOT / ".ci/run"]
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
        for made in (self.root, self.bin):
            made.mkdir()
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        shutil.copytree(ROOT / ".ci", self.root / ".ci")
        shutil.copy(ROOT / "environment.yml", self.root)
        (self.root / "requirements.txt").write_text("# nothing\n")
        (self.root / "requirements-dev.txt").write_text("-r requirements.txt\n# no more\n")
        (self.root / "working_data").mkdir()
        # The tests' own Python is the machine's python3, and no conda is found.
        self.executable("python3", f'exec "{sys.executable}" "$@"')
        path = [d for d in os.environ["PATH"].split(os.pathsep) if not Path(d, "conda").exists()]
        self.environment = {**os.environ, "PATH": os.pathsep.join([str(self.bin), *path])}
        for name in ("PYTHON", "PYTHONPATH", "VIRTUAL_ENV", "SAM_LUNGS_REAL_DATA"):
            self.environment.pop(name, None)

    def executable(self, path, body: str) -> Path:
        """Write a bash program; `path` is relative to the folder that PATH begins with."""
        program = self.bin / path
        program.parent.mkdir(parents=True, exist_ok=True)
        program.write_text(f"#!/usr/bin/env bash\n{body}\n")
        program.chmod(0o755)
        return program

    def recorder(self, path, rest: str = "") -> Path:
        """An executable that adds its name, its folder and its arguments to `calls`."""
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


@pytest.fixture
def tree(tmp_path):
    return Tree(tmp_path)


def assert_one_error(run, *words):
    """The script failed with status 1 and one line of its own that has these words."""
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
def test_shell_files_are_sound(path):
    text = path.read_bytes().decode()
    assert "\r" not in text
    assert text.startswith("#!/usr/bin/env bash\n# ")
    assert "\nset -euo pipefail\n" in text
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", path], check=True)


@pytest.mark.parametrize("path", RUN_CONFIGURATIONS, ids=lambda path: path.name)
def test_run_configurations_name_what_exists(path):
    text = path.read_bytes().decode()
    assert "\r" not in text
    options = {
        option.get("name"): option.get("value") for option in ET.fromstring(text).iter("option")
    }
    assert options["SDK_HOME"] == ""
    assert options["WORKING_DIRECTORY"] == "$PROJECT_DIR$"

    target = options.get("SCRIPT_NAME") or options["_new_target"].strip('"')
    target = Path(target.replace("$PROJECT_DIR$", str(ROOT)))
    assert target.exists()
    for word in shlex.split(options.get("PARAMETERS", "")):
        if word.startswith("--"):
            assert f'"{word}"' in target.read_text()
        elif "/" in word and not word.startswith("datasets/"):
            assert (ROOT / word).parent.is_dir()


def test_there_are_run_configurations():
    assert len(RUN_CONFIGURATIONS) == 7


# Which Python runs the project

CONDA_WITH_SAM = """
case "$1 $2" in
  "env list") printf '# conda environments:\\nbase  * /c\\nsam     /c/envs/sam\\nsample  /c/s\\n' ;;
esac
"""
CONDA_WITHOUT_SAM = CONDA_WITH_SAM.replace("\\nsam ", "\\nsamuel ")


def test_python_is_looked_for_in_order(tree, tmp_path):
    """Each way of having a Python outranks those added before it."""
    script = "scripts/download_model_checkpoints.sh"
    assert_one_error(tree.run(script, cwd=tmp_path), "scripts/setup.sh")

    venv = tree.recorder("../a project/.venv/bin/python")
    succeeded(tree.run(script, "vit_b", cwd=tmp_path))
    assert tree.calls == [
        [
            str(venv.relative_to(tree.bin)),
            str(tree.root),
            "-m",
            CHECKPOINTS,
            "vit_b",
        ]
    ]

    tree.executable("conda", CONDA_WITHOUT_SAM)
    succeeded(tree.run(script))
    assert tree.calls[1][0] == str(venv.relative_to(tree.bin))

    tree.recorder("conda", CONDA_WITH_SAM)
    succeeded(tree.run(script, "vit_l", "vit_h"))
    name, folder, *arguments = tree.calls[-1]
    assert (name, folder) == ("conda", str(tree.root))
    assert " ".join(arguments) == (
        "run -n sam --no-capture-output python -m sam_lungs.segmenters.checkpoints vit_l vit_h"
    )

    python = tree.recorder("my python")
    succeeded(tree.run(script, PYTHON=str(python)))
    assert tree.calls[-1] == ["my python", str(tree.root), "-m", CHECKPOINTS]


def test_relative_PYTHON_is_meant_from_where_the_caller_stands(tree):
    tree.recorder("my python")
    script = "scripts/download_model_checkpoints.sh"
    succeeded(tree.run(script, cwd=tree.bin, PYTHON="./my python"))
    assert tree.calls[0][1] == str(tree.root)
    assert_one_error(tree.run(script, PYTHON="./my python"), "PYTHON", "my python")


@pytest.mark.parametrize(
    ("cwd", "script"),
    [("scripts", "./test.sh"), (".", "scripts/test.sh"), ("scripts", "../scripts/test.sh")],
)
def test_scripts_are_called_from_any_folder(tree, cwd, script):
    python = tree.recorder("my python")
    environment = {**tree.environment, "PYTHON": str(python), "CDPATH": str(tree.root.parent)}
    subprocess.run([script, "-k", "a b"], cwd=tree.root / cwd, env=environment, check=True)
    assert tree.calls == [["my python", str(tree.root), "-m", "pytest", "-k", "a b"]]


def test_download_checkpoints_is_another_name(tree):
    python = tree.recorder("my python")
    succeeded(tree.run("scripts/download_checkpoints.sh", "vit_b", PYTHON=str(python)))
    assert tree.calls == [
        ["my python", str(tree.root), "-m", CHECKPOINTS, "vit_b"],
    ]


# scripts/setup.sh


def test_setup_makes_a_venv_once_and_again_when_requirements_change(tree):
    python = tree.root / ".venv/bin/python"
    succeeded(tree.run("scripts/setup.sh", "requirements-dev.txt"))
    subprocess.run([python, "-m", "pip", "--version"], check=True, stdout=subprocess.DEVNULL)

    for requirements in ("requirements-dev.txt", "requirements.txt"):
        run = succeeded(tree.run("scripts/setup.sh", requirements))
        assert run.stdout == ".venv is up to date\n"

    (tree.root / "requirements.txt").write_text("./no such package\n")
    assert tree.run("scripts/setup.sh").returncode != 0
    # What failed half way counts as not done, even for the requirements that had been met.
    (tree.root / "requirements.txt").write_text("# nothing\n")
    assert "is ready" in succeeded(tree.run("scripts/setup.sh")).stdout
    assert "up to date" in succeeded(tree.run("scripts/setup.sh")).stdout


def test_setup_makes_a_half_made_venv_anew(tree):
    tree.executable("../a project/.venv/bin/python", "[[ $* != *pip* ]]")
    tree.recorder("python3")
    tree.run("scripts/setup.sh")
    assert tree.calls[-1][2:] == ["-m", "venv", "--clear", ".venv"]


def test_setup_leaves_PYTHON_alone(tree):
    python = tree.recorder("my python")
    run = succeeded(tree.run("scripts/setup.sh", PYTHON=str(python)))
    assert str(python) in run.stdout
    assert tree.calls == []
    assert not (tree.root / ".venv").exists()


CONDA = """
case "$1 $2" in
  "env list") ls "$ENVS" | sed 's|$|    /envs|' ;;
  "env create" | "env update") mkdir -p "$ENVS/sam" ;;
  "run -n")
    [[ -d $ENVS/$3 ]] || exit 1
    if [[ $* == *sysconfig* ]]; then echo "$ENVS/sam/made_from"; fi ;;
esac
"""


def test_setup_makes_and_updates_the_conda_environment(tree, tmp_path):
    tree.environment["ENVS"] = str(tmp_path / "envs")
    (tmp_path / "envs").mkdir()
    tree.recorder("conda", CONDA)

    def actions():
        """What changes an environment, in order, since the last look."""
        words = [" ".join(call[2:]) for call in tree.calls]
        tree.calls_log.unlink()
        return [w for w in words if "sysconfig" not in w and w != "env list"]

    python = "run -n sam --no-capture-output python"
    pip = f"{python} -m pip install --disable-pip-version-check --requirement"
    environment = "--name sam --file environment.yml"

    succeeded(tree.run("scripts/setup.sh"))
    assert actions() == [f"env create {environment}", f"{pip} requirements.txt"]
    succeeded(tree.run("scripts/setup.sh"))
    assert actions() == []
    succeeded(tree.run("scripts/test.sh", "-x"))
    assert actions() == [
        f"env update {environment}",
        f"{pip} requirements-dev.txt",
        f"{python} -m pytest -x",
    ]
    succeeded(tree.run("scripts/setup.sh"))
    assert actions() == []
    assert not (tree.root / ".venv").exists()


def test_setup_says_what_python3_lacks(tree):
    tree.executable("python3", "[[ $2 != *version_info* ]]")
    assert_one_error(tree.run("scripts/setup.sh"), "3.10")
    tree.executable("python3", "[[ $2 != *ensurepip* ]]")
    assert_one_error(tree.run("scripts/setup.sh"), "venv")
    assert_one_error(tree.run("scripts/setup.sh", "no.txt"), "no.txt")


# .ci/run


@pytest.mark.parametrize(
    ("output", "status", "expected"),
    [
        ("===== 3 passed, 2 skipped in 0.12s =====", 0, 0),
        ("===== \033[32m3 passed\033[0m in 61.20s (0:01:01) =====", 0, 0),
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


def test_ci_fails_on_style_before_the_tests(tree):
    python = tree.executable("my python", "[[ $* != *format* ]]")
    tree.recorder("../a project/scripts/test.sh")
    assert tree.run(".ci/run", PYTHON=str(python)).returncode == 1
    assert tree.calls == []


def test_ci_offers_the_real_data_beside_the_checkout(tree):
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


def test_nifti_to_numpy_repairs_and_turns_what_is_there(tree):
    """With the real Python, on a dataset of two volumes, one of which is broken."""
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
    assert is_converted(image, arrays[0], "radiological")
    assert is_converted(masks, arrays[1], "radiological")


def test_nifti_to_numpy_says_where_the_dataset_comes_from(tree):
    run = tree.run("scripts/nifti_to_numpy.sh", PYTHON=sys.executable)
    assert_one_error(run, "scripts/download_dataset.sh")
    make_dataset(tree)
    shutil.rmtree(tree.root / "datasets/zenodo" / MASKS)
    run = tree.run("scripts/nifti_to_numpy.sh", PYTHON=sys.executable)
    assert_one_error(run, MASKS, "scripts/download_dataset.sh")
    assert run.stdout == ""


# scripts/process_images.sh


@pytest.mark.parametrize(
    ("options", "results"),
    [
        ([], "working_data/results"),
        (["--precision", "a b"], "working_data/results"),
        (["--output_folder", "my results", "--debug"], "my results"),
        (["--output_folder=my results"], "my results"),
        (["--prompts", "paper,no_box"], "working_data/results/paper,working_data/results/no_box"),
        (["--prompts=points", "--output_folder=my results"], "my results/points"),
        (["--dry_run"], ""),
        (["-n"], ""),
        (["--help"], ""),
    ],
)
def test_process_images_runs_the_study_in_one_call_joins_and_reports(tree, options, results):
    python = tree.recorder("my python")
    succeeded(tree.run("scripts/process_images.sh", *options, PYTHON=str(python)))

    process, *after = [call[2:] for call in tree.calls]
    assert process[:2] == ["process_image.py", "--image_file_path"]
    images, masks = process[2:22], process[23:43]
    assert process[22] == "--masks_file_path"
    assert process[43:] == options
    assert len(set(images)) == 20
    assert images[0] == "working_data/image_coronacases_001.npy"
    assert images[19] == "working_data/image_radiopaedia_7_85703_0.npy"
    assert masks == [image.replace("/image_", "/masks_") for image in images]
    folders = results.split(",") if results else []
    expected = [["join_results.py", "--results_folder_path", folder] for folder in folders]
    if folders:
        compare = ["--compare", *folders[1:]] if folders[1:] else []
        expected.append(["make_report.py", "--results_folder_path", folders[0], *compare])
    assert after == expected


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_process_images_stops_when_its_study_has_stopped_kindly(tree, number, status):
    python = tree.recorder(
        "my python", "trap 'echo slice written; exit 143' TERM\necho begun\nsleep 30 & wait"
    )
    running = subprocess.Popen(
        [tree.root / "scripts/process_images.sh"],
        env={**tree.environment, "PYTHON": str(python)},
        stdout=subprocess.PIPE,
        text=True,
        # Which is ignored where the tests are started in a shell's background.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert running.stdout.readline() == "begun\n"
    running.send_signal(number)
    assert running.stdout.readline() == "slice written\n"
    assert running.wait(timeout=20) == status
    assert len(tree.calls) == 1
    running.stdout.close()


def test_a_second_signal_reaches_the_study_too(tree):
    python = tree.recorder(
        "my python",
        "trap 'trap - TERM; echo stopping' TERM\necho begun\nwhile :; do sleep 0.1; done",
    )
    running = subprocess.Popen(
        [tree.root / "scripts/process_images.sh"],
        env={**tree.environment, "PYTHON": str(python)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert running.stdout.readline() == "begun\n"
    running.send_signal(signal.SIGTERM)
    assert running.stdout.readline() == "stopping\n"
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=20) == 143
    assert running.stdout.read() == ""  # once nobody holds it open any more
    running.stdout.close()


def test_process_images_does_not_join_after_a_failure(tree):
    python = tree.recorder("my python", "exit 1")
    assert tree.run("scripts/process_images.sh", PYTHON=str(python)).returncode == 1
    assert len(tree.calls) == 1


# scripts/paper/


@pytest.mark.parametrize(
    ("figure", "volume", "index"),
    [
        (1, "coronacases_001", "98"),
        (2, "coronacases_001", "85"),
        (3, "coronacases_001", "122"),
        (4, "coronacases_001", "177"),
        (5, "radiopaedia_10_85902_3", "171"),
    ],
)
def test_figures_draw_the_papers_slices_with_protocols_there_are(tree, figure, volume, index):
    python = tree.recorder("my python", f"mkdir -p working_data/paper/figure_{figure}/debug")
    script = f"scripts/paper/figure_{figure}.sh"
    succeeded(tree.run(script, "--model", "vit_b", PYTHON=str(python)))
    (call,) = tree.calls
    after = {
        option: call[call.index(option) + 1] for option in ("-i", "-m", "--slice", "--prompts")
    }
    assert after["-i"] == f"working_data/image_{volume}.npy"
    assert after["-m"] == f"working_data/masks_{volume}.npy"
    assert after["--slice"] == index
    assert set(after["--prompts"].split(",")) <= PROTOCOLS.keys()
    assert "--debug" in call
    assert call[-2:] == ["--model", "vit_b"]


def test_the_papers_table_is_the_study(tree):
    python = tree.recorder("my python")
    succeeded(tree.run("scripts/paper/table_1.sh", "--model", "vit_b", PYTHON=str(python)))
    process, *_ = tree.calls
    assert process[2] == "process_image.py"
    assert process[-2:] == ["--model", "vit_b"]


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
def test_downloads_are_the_modules(tree, tmp_path, script, module, status):
    python = tree.recorder("my python", f"exit {status}")
    options = ["--mirror", "http://127.0.0.1/a folder"]
    run = tree.run(f"scripts/{script}.sh", *options, cwd=tmp_path, PYTHON=str(python))
    assert run.returncode == status
    assert tree.calls == [["my python", str(tree.root), "-m", f"sam_lungs.{module}", *options]]
