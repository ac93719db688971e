"""The shell scripts, run as a user runs them, in a copy of the project's tree.

What is heavy or needs a network (the project's Python, conda, the dataset's server) is replaced
by a stand-in that writes down how it was called.
"""

import hashlib
import io
import os
import shlex
import shutil
import subprocess
import sys
import threading
import xml.etree.ElementTree as ET
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from sam_lungs.prompts import PROTOCOLS

ROOT = Path(__file__).resolve().parent.parent
SHELL_FILES = [*sorted(ROOT.glob("scripts/**/*.sh")), ROOT / ".ci/run"]
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
        [str(venv.relative_to(tree.bin)), str(tree.root), "-m", "sam_lungs.checkpoints", "vit_b"]
    ]

    tree.executable("conda", CONDA_WITHOUT_SAM)
    succeeded(tree.run(script))
    assert tree.calls[1][0] == str(venv.relative_to(tree.bin))

    tree.recorder("conda", CONDA_WITH_SAM)
    succeeded(tree.run(script, "vit_l", "vit_h"))
    name, folder, *arguments = tree.calls[-1]
    assert (name, folder) == ("conda", str(tree.root))
    assert " ".join(arguments) == (
        "run -n sam --no-capture-output python -m sam_lungs.checkpoints vit_l vit_h"
    )

    python = tree.recorder("my python")
    succeeded(tree.run(script, PYTHON=str(python)))
    assert tree.calls[-1] == ["my python", str(tree.root), "-m", "sam_lungs.checkpoints"]


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
        ["my python", str(tree.root), "-m", "sam_lungs.checkpoints", "vit_b"],
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


def test_nifti_to_numpy_converts_what_is_not_converted(tree, tmp_path):
    make_dataset(tree)
    array = tree.root / "working_data/image_volume_002.npy"
    array.touch()
    python = tree.recorder("my python", 'touch "$5"')
    script = "scripts/nifti_to_numpy.sh"
    run = succeeded(tree.run(script, "--orientation", "a b", cwd=tmp_path, PYTHON=str(python)))

    lines = run.stdout.splitlines()
    assert len(lines) == 40
    assert lines[1] == "[ 2/40] working_data/image_volume_002.npy: already converted, skipped"
    assert lines[2] == "[ 3/40] working_data/image_volume_003.npy"
    assert lines[39] == "[40/40] working_data/masks_volume_020.npy"
    expected = [
        [
            "nifti_to_numpy.py",
            "--input_file_path",
            f"datasets/zenodo/{folder}/{name}.nii.gz",
            "--output_file_path",
            f"working_data/{kind}_{name}.npy",
            "--orientation",
            "a b",
        ]
        for folder, kind in ((IMAGES, "image"), (MASKS, "masks"))
        for name in VOLUMES
    ]
    del expected[1]
    assert [call[2:] for call in tree.calls] == expected

    # A volume that is newer than its array is converted again, alone.
    os.utime(array, (1, 1))
    run = succeeded(tree.run(script, PYTHON=str(python)))
    assert [line for line in run.stdout.splitlines() if "skipped" not in line] == [
        "[ 2/40] working_data/image_volume_002.npy"
    ]


def test_nifti_to_numpy_stops_at_the_first_failure(tree):
    make_dataset(tree)
    python = tree.recorder("my python", "[[ $* != *image_volume_003* ]] || exit 1")
    run = tree.run("scripts/nifti_to_numpy.sh", PYTHON=str(python))
    assert run.returncode == 1
    assert len(tree.calls) == 3


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


# scripts/download_dataset.sh


def zip_of(volumes=VOLUMES, top="", extra=()) -> bytes:
    """A zip of volumes as the dataset's publishers might have made it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in (*volumes, *extra):
            archive.writestr(f"{top}{name}.nii.gz", f"volume {name} " * 200)
    return buffer.getvalue()


class Zenodo(BaseHTTPRequestHandler):
    """Serves `server.files`; honours Range, and can break a file off once, at `server.break_at`."""

    def do_GET(self):
        content = self.server.files.get(self.path.rpartition("/")[2])
        if content is None:
            self.send_error(404)
            return
        start = 0
        if "Range" in self.headers:
            start = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
        self.server.requests.append((self.path, start))
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        self.wfile.write(content[start : self.server.break_at])
        self.server.break_at = None

    def log_message(self, *_):
        pass


@pytest.fixture
def zenodo():
    with ThreadingHTTPServer(("127.0.0.1", 0), Zenodo) as server:
        server.files = {f"{IMAGES}.zip": zip_of(), f"{MASKS}.zip": zip_of()}
        server.requests = []
        server.break_at = None
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server
        server.shutdown()


class Download:
    """download_dataset.sh in `tree`, made to fetch its files from `zenodo`."""

    def __init__(self, tree, zenodo):
        self.tree, self.zenodo = tree, zenodo
        self.folder = tree.root / "datasets/zenodo"

    def __call__(self, **environment):
        script = self.tree.root / "scripts/download_dataset.sh"
        text = (ROOT / "scripts/download_dataset.sh").read_text()
        address = f"http://127.0.0.1:{self.zenodo.server_port}/files"
        text = text.replace("https://zenodo.org/record/3757476/files", address)
        for name in (IMAGES, MASKS):
            line = next(line for line in text.splitlines() if line.startswith(f"fetch {name} "))
            sha256 = hashlib.sha256(self.zenodo.files[f"{name}.zip"]).hexdigest()
            text = text.replace(line, f"fetch {name} {sha256}")
        script.write_text(text)
        environment = {"PYTHON": sys.executable, "no_proxy": "127.0.0.1", **environment}
        return self.tree.run("scripts/download_dataset.sh", cwd="/", **environment)

    def put_archives_by_hand(self):
        self.folder.mkdir(parents=True)
        for name, content in self.zenodo.files.items():
            (self.folder / name).write_bytes(content)

    def names(self, folder):
        return sorted(path.name for path in (self.folder / folder).iterdir())


@pytest.fixture
def download(tree, zenodo):
    return Download(tree, zenodo)


needs_wget = pytest.mark.skipif(not shutil.which("wget"), reason="wget is not installed")
ALL_VOLUMES = [f"{name}.nii.gz" for name in VOLUMES]


@needs_wget
@pytest.mark.parametrize("top", ["", "a folder/"])
def test_download_fetches_and_unpacks_once(download, zenodo, top):
    extra = ["__MACOSX/volume_001", "__MACOSX/._volume_001", ".hidden"]
    zenodo.files[f"{IMAGES}.zip"] = zip_of(top=top, extra=extra)
    succeeded(download())
    assert download.names(IMAGES) == download.names(MASKS) == ALL_VOLUMES
    assert (download.folder / IMAGES / "volume_001.nii.gz").read_text().startswith("volume volume")
    assert [path for path, _ in zenodo.requests] == [
        f"/files/{IMAGES}.zip",
        f"/files/{MASKS}.zip",
    ]
    assert not list(download.folder.glob("*.partial"))

    zenodo.shutdown()
    zenodo.server_close()
    succeeded(download(PATH=str(path_without_wget(download.tree))))


@needs_wget
def test_download_goes_on_where_it_was_interrupted(download, zenodo):
    half = len(zenodo.files[f"{IMAGES}.zip"]) // 2
    download.folder.mkdir(parents=True)
    (download.folder / f"{IMAGES}.zip").write_bytes(zenodo.files[f"{IMAGES}.zip"][:half])
    # An unpacking that was killed: it has all the volumes, one of them broken.
    partial = download.folder / f"{IMAGES}.partial"
    partial.mkdir()
    for name in ALL_VOLUMES:
        (partial / name).touch()
    succeeded(download())
    assert zenodo.requests[0] == (f"/files/{IMAGES}.zip", half)
    assert all(path.stat().st_size for path in (download.folder / IMAGES).iterdir())
    assert not partial.exists()


@needs_wget
def test_download_survives_a_connection_that_breaks(download, zenodo):
    zenodo.break_at = 1000
    succeeded(download())
    assert [start for _, start in zenodo.requests] == [0, 1000, 0]


@needs_wget
def test_download_deletes_a_file_with_the_wrong_hash(download, zenodo):
    archive = download.folder / f"{IMAGES}.zip"
    archive.parent.mkdir(parents=True)
    archive.write_bytes(zip_of(VOLUMES, top="not what it should be"))
    assert_one_error(download(), f"{IMAGES}.zip", "SHA-256")
    assert not archive.exists()
    assert not (download.folder / IMAGES).exists()
    succeeded(download())


@needs_wget
@pytest.mark.parametrize("count", [0, 19, 21])
def test_download_counts_the_volumes(download, zenodo, count):
    names = [f"volume_{number:03}" for number in range(count)]
    zenodo.files[f"{MASKS}.zip"] = zip_of(names)
    assert_one_error(download(), MASKS, f"{count} volumes")


@needs_wget
def test_download_compares_the_names(download, zenodo):
    zenodo.files[f"{MASKS}.zip"] = zip_of([*VOLUMES[1:], "another"])
    assert_one_error(download(), "names")


@needs_wget
def test_download_without_network_says_what_to_do(download, zenodo):
    zenodo.shutdown()
    zenodo.server_close()
    run = download()
    assert_one_error(run, f"/files/{IMAGES}.zip", str(download.folder / f"{IMAGES}.zip"))


def path_without_wget(tree) -> Path:
    """The one folder of a PATH that has everything the scripts use but wget."""
    folder = tree.bin / "without wget"
    folder.mkdir()
    used = "bash env dirname find sed sort wc tr mv rm mkdir sha256sum shasum"
    for program in used.split():
        if real := shutil.which(program):
            (folder / program).symlink_to(real)
    return folder


def test_download_without_wget_takes_files_put_there_by_hand(download, zenodo):
    path = str(path_without_wget(download.tree))
    assert_one_error(download(PATH=path), "wget", f"{IMAGES}.zip")
    download.put_archives_by_hand()
    succeeded(download(PATH=path))
    assert download.names(IMAGES) == download.names(MASKS) == ALL_VOLUMES
    assert zenodo.requests == []


def test_download_verifies_where_there_is_no_sha256sum(download):
    path = path_without_wget(download.tree)
    for program in ("sha256sum", "shasum"):
        (path / program).unlink(missing_ok=True)
    digest = "import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest(), '-')"
    shasum = f"""[[ "$1 $2" == "-a 256" ]] && exec "{sys.executable}" -c "{digest}" <"$3" """
    download.tree.executable(path / "shasum", shasum)
    download.put_archives_by_hand()
    succeeded(download(PATH=str(path)))
