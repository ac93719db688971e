"""The dataset is downloaded, unpacked and checked, with a server on this machine."""

import hashlib
import io
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT
from server import Server, answers, error_of, files_in

from sam_lungs.data import zenodo as dataset
from sam_lungs.data.zenodo import ARCHIVES, fetch
from sam_lungs.utils.files import LOCK_NAME

IMAGES, MASKS = ARCHIVES
VOLUMES = [f"volume_{number:03}.nii.gz" for number in range(1, 21)]


def content_of(name: str, kind: str = "") -> bytes:
    return f"{kind} {name} ".encode() * 200


def zip_of(names=VOLUMES, kind="", top="", compression=zipfile.ZIP_STORED) -> bytes:
    """Return an archive of volumes as the publishers of the dataset might have made it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name in names:
            archive.writestr(f"{top}{name}", content_of(name, kind))
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "datasets" / "zenodo"


@pytest.fixture
def zenodo(monkeypatch: pytest.MonkeyPatch):
    """A mirror of two archives; `publish` changes them."""
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        server.files = {}

        def publish(name: str, content: bytes) -> None:
            server.files[f"{name}.zip"] = content
            monkeypatch.setitem(ARCHIVES, name, hashlib.sha256(content).hexdigest())

        server.publish = publish
        publish(IMAGES, zip_of(kind="image"))
        publish(MASKS, zip_of(kind="mask"))
        yield server


def put_archives_by_hand(folder: Path, zenodo: Server) -> None:
    folder.mkdir(parents=True)
    for name, content in zenodo.files.items():
        (folder / name).write_bytes(content)


def expected(kind: str) -> dict[str, bytes]:
    return {name: content_of(name, kind) for name in VOLUMES}


def assert_complete(folder: Path) -> None:
    for name, kind in ((IMAGES, "image"), (MASKS, "mask")):
        files = files_in(folder / name)
        files.pop(LOCK_NAME, None)
        assert files == expected(kind)


# Downloading and unpacking


@pytest.mark.parametrize("top", ["", "a folder/", "a/b/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_the_dataset_is_downloaded_and_unpacked_once(zenodo, folder, top, compression):
    beside = ["__MACOSX/._volume_001.nii.gz", ".volume_001.nii.gz", "README.txt", "empty/"]
    zenodo.publish(IMAGES, zip_of([*VOLUMES, *beside], "image", top, compression))
    fetch(folder, zenodo.url)
    assert_complete(folder)
    assert len(zenodo.ranges) == 2
    fetch(folder)
    for archive in folder.glob("*.zip"):
        archive.unlink()
    fetch(folder)
    assert_complete(folder)
    assert sorted(os.listdir(folder)) == [IMAGES, MASKS]


def test_archives_copied_by_hand_need_no_network(zenodo, folder):
    put_archives_by_hand(folder, zenodo)
    fetch(folder)
    assert_complete(folder)
    assert zenodo.ranges == []


def test_an_interrupted_download_is_resumed(zenodo, folder):
    content = zenodo.files[f"{IMAGES}.zip"]
    folder.mkdir(parents=True)
    (folder / f"{IMAGES}.zip.part").write_bytes(content[: len(content) // 2])
    fetch(folder, zenodo.url)
    assert_complete(folder)
    assert zenodo.ranges == [f"bytes={len(content) // 2}-", None]


def test_volumes_that_are_missing_or_of_another_size_are_unpacked_again(zenodo, folder):
    fetch(folder, zenodo.url)
    (folder / IMAGES / VOLUMES[3]).unlink()
    (folder / IMAGES / VOLUMES[5]).write_bytes(b"half")
    untouched = (folder / IMAGES / VOLUMES[0]).stat().st_mtime_ns
    fetch(folder)
    assert_complete(folder)
    assert (folder / IMAGES / VOLUMES[0]).stat().st_mtime_ns == untouched


@pytest.fixture
def command(folder, monkeypatch):
    """Start a process that fetches the dataset as the script does, after running `before`."""

    def start(mirror: str | None, before: str = "") -> subprocess.Popen:
        code = f"""
import os, signal
from pathlib import Path
from sam_lungs.data import zenodo as dataset
from sam_lungs.utils.cli import run_script
{before}
dataset.ARCHIVES = {dict(ARCHIVES)!r}
run_script(lambda: dataset.fetch(Path({str(folder)!r}), {mirror!r}))
"""
        return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)

    return start


@pytest.mark.parametrize("step", ["before", "middle"])
def test_unpacking_resumes_after_a_kill(zenodo, folder, command, step):
    """It is killed at its 7th volume, twice, before or in the middle of writing it."""
    put_archives_by_hand(folder, zenodo)
    half = "target.write(source.read(1000)); target.flush(); " if step == "middle" else ""
    before = f"""
import shutil
calls = 0
copy = shutil.copyfileobj
def dies(source, target):
    global calls
    calls += 1
    if calls == 7:
        {half}os.kill(os.getpid(), signal.SIGKILL)
    copy(source, target)
shutil.copyfileobj = dies
"""
    for unpacked in (6, 12):
        assert command(None, before).wait() == -signal.SIGKILL
        held = files_in(folder / IMAGES)
        whole = {name: content for name, content in held.items() if not name.startswith(".")}
        assert len(whole) == unpacked
        assert whole.items() <= expected("image").items()
    assert command(None).wait() == 0
    assert_complete(folder)


def test_two_processes_at_once(zenodo, folder, command):
    both = [command(zenodo.url) for _ in range(2)]
    # The second waits for a download, and is refused while the first unpacks.
    assert sorted(process.wait() for process in both) in ([0, 0], [0, 1])
    assert_complete(folder)
    assert zenodo.ranges == [None, None]


# Faults


@pytest.mark.parametrize("content", [b"", zip_of(kind="other"), zip_of(kind="image")[:5000]])
def test_a_different_archive_is_refused_and_left_alone(zenodo, folder, content):
    folder.mkdir(parents=True)
    archive = folder / f"{IMAGES}.zip"
    archive.write_bytes(content)
    message = error_of(fetch, folder, zenodo.url)
    assert message.startswith(f"{archive}: not the published archive (SHA-256 ")
    assert "delete it and run the same command again" in message
    assert files_in(folder) == {archive.name: content}
    assert zenodo.ranges == []


def test_a_download_of_a_different_archive_is_deleted(zenodo, folder):
    zenodo.files[f"{IMAGES}.zip"] = zip_of(kind="other")
    assert "is not the published one" in error_of(fetch, folder, zenodo.url)
    assert files_in(folder) == {}


@pytest.mark.parametrize("held", ["0 volumes", "1 volume", "19 volumes", "21 volumes"])
def test_a_different_number_of_volumes_in_the_archive_is_refused(zenodo, folder, held):
    number = int(held.split()[0])
    zenodo.publish(MASKS, zip_of([f"volume_{each:03}.nii.gz" for each in range(number)]))
    message = error_of(fetch, folder, zenodo.url)
    assert message.startswith(f"{folder / MASKS}: holds {held} instead of 20; delete it")


def test_an_entry_outside_the_folder_is_unpacked_into_it(zenodo, folder):
    """Even if an archive with the published SHA-256 could hold one."""
    zenodo.publish(IMAGES, zip_of([*VOLUMES[1:], f"../../{VOLUMES[0]}"], "image"))
    fetch(folder, zenodo.url)
    assert set(os.listdir(folder / IMAGES)) - {LOCK_NAME} == set(VOLUMES)
    assert os.listdir(folder.parent) == ["zenodo"]


def test_a_folder_with_more_volumes_is_refused(zenodo, folder):
    (folder / IMAGES).mkdir(parents=True)
    (folder / IMAGES / "another.nii.gz").touch()
    message = error_of(fetch, folder, zenodo.url)
    assert message.startswith(f"{folder / IMAGES}: holds 21 volumes instead of 20; delete it")


def test_without_a_network_the_error_names_the_file_to_copy_and_its_folder(zenodo, folder):
    zenodo.answer = answers(503)
    message = error_of(fetch, folder, zenodo.url)
    assert message.startswith(f"{zenodo.url}/{IMAGES}.zip: cannot be downloaded")
    assert f"put {IMAGES}.zip into {folder} by hand" in message
    assert message.endswith(f"; also missing: {dataset.RECORD_URL}/{MASKS}.zip")
    (folder / f"{MASKS}.zip").touch()
    assert "also missing" not in error_of(fetch, folder, zenodo.url)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, Path.touch])
def test_a_folder_or_archive_of_the_wrong_kind_is_refused(zenodo, folder, make):
    folder.mkdir(parents=True)
    make(folder / f"{IMAGES}.zip")
    error_of(fetch, folder, zenodo.url)
    shutil.rmtree(folder)
    folder.parent.joinpath("zenodo").touch()
    error_of(fetch, folder, zenodo.url)


# The command


@pytest.fixture
def run_command(run_copied):
    return partial(run_copied, "sam_lungs.data.zenodo")


def test_without_a_network_the_command_fails_in_one_line(run_command, tmp_path):
    ended = run_command()
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {dataset.RECORD_URL}/{IMAGES}.zip: cannot be downloaded")
    assert f"put {IMAGES}.zip into {tmp_path / 'datasets' / 'zenodo'} by hand" in line
    assert "scripts/download_dataset.sh --mirror URL" in line
    assert line.endswith(f"; also missing: {dataset.RECORD_URL}/{MASKS}.zip")


def test_the_command_checks_the_files_of_a_mirror(run_command, zenodo, folder):
    ended = run_command("--mirror", zenodo.url)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"{zenodo.url}/{IMAGES}.zip: the downloaded file is not the published one" in line
    assert files_in(folder) == {}


def test_the_command_prints_the_folder(zenodo, folder, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "__defaults__", (folder, None))
    monkeypatch.setattr(sys, "argv", ["dataset", "--mirror", zenodo.url])
    dataset.main()
    streams = capsys.readouterr()
    assert streams.out == f"{dataset.DATASET_FOLDER} holds the 20 volumes and their lung masks\n"
    assert streams.err.splitlines() == [f"{name}: 20 of 20 volumes, 0 s left" for name in ARCHIVES]
    assert_complete(folder)
