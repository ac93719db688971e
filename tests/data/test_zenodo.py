"""The dataset: downloaded, unpacked and told from what is not it, with a server on this machine."""

import hashlib
import io
import itertools
import os
import shutil
import signal
import stat
import struct
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

IMAGES, MASKS = ARCHIVES
VOLUMES = [f"volume_{number:03}.nii.gz" for number in range(1, 21)]


def content_of(name: str, kind: str = "") -> bytes:
    return f"{kind} {name} ".encode() * 200


def zip_of(names=VOLUMES, kind="", top="", compression=zipfile.ZIP_STORED) -> bytes:
    """An archive of volumes as the dataset's publishers might have made it."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name in names:
            archive.writestr(f"{top}{name}", content_of(name, kind))
    return file.getvalue()


def zip_with(*extra: tuple[str | zipfile.ZipInfo, bytes]) -> bytes:
    """An archive of the 20 volumes and what is not one."""
    file = io.BytesIO(zip_of())
    with zipfile.ZipFile(file, "a") as archive:
        for name, content in extra:
            archive.writestr(name, content)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "datasets" / "zenodo"


@pytest.fixture
def zenodo(monkeypatch: pytest.MonkeyPatch):
    """A mirror of two archives, and a way to change them."""
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
    assert files_in(folder / IMAGES) == expected("image")
    assert files_in(folder / MASKS) == expected("mask")


# --- The right way ------------------------------------------------------------------------------


@pytest.mark.parametrize("top", ["", "a folder/", "a/b/"])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_it_is_downloaded_and_unpacked_once(zenodo, folder, top, compression):
    beside = ["__MACOSX/volume_001.nii.gz", ".volume_001.nii.gz", "README.txt", "empty/"]
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


def test_archives_put_there_by_hand_need_no_network(zenodo, folder):
    put_archives_by_hand(folder, zenodo)
    fetch(folder)
    assert_complete(folder)
    assert zenodo.ranges == []


def test_a_download_goes_on_where_it_was_interrupted(zenodo, folder):
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
    """Start a process that fetches the dataset as the script does; `before` runs in it first."""

    def start(mirror: str | None, before: str = "") -> subprocess.Popen:
        code = f"""
import os, signal
from pathlib import Path
from sam_lungs.data import zenodo as dataset
from sam_lungs.utils.errors import run_script
{before}
dataset.ARCHIVES = {dict(ARCHIVES)!r}
run_script(lambda: dataset.fetch(Path({str(folder)!r}), {mirror!r}))
"""
        return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.DEVNULL)

    return start


@pytest.mark.parametrize("step", ["copyfileobj", "write"])
def test_a_killed_unpacking_is_ended_by_the_same_command(zenodo, folder, command, step):
    """It dies at volume 7, then at volume 14, before or in the middle of writing it."""
    put_archives_by_hand(folder, zenodo)
    half = "target.write(source.read(1000)); target.flush(); " if step == "write" else ""
    before = f"""
calls = 0
copy = dataset.shutil.copyfileobj
def dies(source, target):
    global calls
    calls += 1
    if calls == 7:
        {half}os.kill(os.getpid(), signal.SIGKILL)
    copy(source, target)
dataset.shutil.copyfileobj = dies
"""
    for unpacked in (6, 12):
        assert command(None, before).wait() == -signal.SIGKILL
        held = files_in(folder / IMAGES)
        whole = {name: content for name, content in held.items() if not name.startswith(".")}
        assert len(whole) == unpacked
        assert whole.items() <= expected("image").items()
    assert command(None).wait() == 0
    assert_complete(folder)


def test_two_at_once(zenodo, folder, command):
    both = [command(zenodo.url) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert_complete(folder)
    assert zenodo.ranges == [None, None]


# --- What is wrong ------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"", zip_of(kind="other"), zip_of(kind="image")[:5000]])
def test_an_archive_that_is_another_is_told_and_left_alone(zenodo, folder, content):
    folder.mkdir(parents=True)
    archive = folder / f"{IMAGES}.zip"
    archive.write_bytes(content)
    message = error_of(fetch, folder, zenodo.url)
    assert message.startswith(f"{archive}: is not the published archive (SHA-256 ")
    assert "delete it and run the same command again" in message
    assert files_in(folder) == {archive.name: content}
    assert zenodo.ranges == []


def test_a_download_of_another_archive_is_not_kept(zenodo, folder):
    zenodo.files[f"{IMAGES}.zip"] = zip_of(kind="other")
    assert "is not what was published" in error_of(fetch, folder, zenodo.url)
    assert files_in(folder) == {}


@pytest.mark.parametrize("count", [0, 19, 21])
def test_an_archive_of_another_number_of_volumes_is_told(zenodo, folder, count):
    zenodo.publish(MASKS, zip_of([f"volume_{number:03}.nii.gz" for number in range(count)]))
    message = error_of(fetch, folder, zenodo.url)
    assert f"{MASKS}.zip: cannot be unpacked ({count} volumes instead of 20)" in message


def test_a_folder_of_more_volumes_is_told(zenodo, folder):
    (folder / IMAGES).mkdir(parents=True)
    (folder / IMAGES / "another.nii.gz").touch()
    message = error_of(fetch, folder, zenodo.url)
    assert message.startswith(f"{folder / IMAGES}: holds 21 volumes instead of 20: delete it")


def test_other_names_are_told(zenodo, folder):
    zenodo.publish(MASKS, zip_of([*VOLUMES[1:], "another.nii.gz"]))
    assert "differ in their names" in error_of(fetch, folder, zenodo.url)


def test_without_a_network_the_message_says_what_to_put_where(zenodo, folder):
    zenodo.answer = answers(503)
    message = error_of(fetch, folder, zenodo.url)
    assert message.startswith(f"{zenodo.url}/{IMAGES}.zip: cannot be downloaded")
    assert f"put {IMAGES}.zip into {folder} by hand" in message


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, Path.touch])
def test_a_folder_or_archive_that_is_none_is_told(zenodo, folder, make):
    folder.mkdir(parents=True)
    make(folder / f"{IMAGES}.zip")
    error_of(fetch, folder, zenodo.url)
    shutil.rmtree(folder)
    folder.parent.joinpath("zenodo").touch()
    error_of(fetch, folder, zenodo.url)


# --- Archives made to harm, with the hash of the published one -----------------------------------


def link(name: str, kind: int = stat.S_IFLNK) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system = 3  # Unix
    entry.external_attr = (kind | 0o777) << 16
    return entry


def changed(content: bytes, offset: int, new: bytes) -> bytes:
    """The archive, with other bytes in what it lists of its first volume."""
    place = content.index(b"PK\1\2") + offset
    return content[:place] + new + content[place + len(new) :]


ESCAPES = [
    "../x.nii.gz",
    "a/../../x.nii.gz",
    "/tmp/x.nii.gz",
    "//tmp/x.nii.gz",
    "..",
    "..\\x.nii.gz",
    "C:\\x.nii.gz",
    "../x.txt",
    "__MACOSX/../../x",
]
BZIP2 = zip_of(compression=zipfile.ZIP_BZIP2)
TWICE = zip_of([*VOLUMES[:-1], f"other/{VOLUMES[0]}"])
HARMFUL = {
    **{f"escape {name}": (zip_with((name, b"")), "leaves the folder") for name in ESCAPES},
    "link": (zip_with((link("x.nii.gz"), b"/etc/passwd")), "is a link"),
    "link of no volume": (zip_with((link("x"), b"/etc")), "is a link"),
    "device": (zip_with((link("x.nii.gz", stat.S_IFCHR), b"")), "is a link"),
    "twice": (zip_with((f"other/{VOLUMES[0]}", b"")), "'volume_001.nii.gz' is there twice"),
    "bomb": (changed(zip_of(), 20, struct.pack("<II", 1 << 31, 1 << 31)), "at most 1,073,741,824"),
    "other compression": (BZIP2, "is compressed"),
    "encrypted": (changed(zip_of(), 8, b"\1"), "encrypted"),
    "more than listed": (
        changed(zip_of(compression=zipfile.ZIP_DEFLATED), 24, struct.pack("<I", 10)),
        "Bad CRC-32",
    ),
    "wrong checksum": (zip_of().replace(b" volume", b"-volume", 1), "Bad CRC-32"),
    "wrong beginning": (b"1" * 100 + zip_of()[100:], "cannot be unpacked"),
}


@pytest.mark.parametrize(("content", "reason"), HARMFUL.values(), ids=HARMFUL)
def test_harmful_archives_are_refused(zenodo, folder, content, reason):
    zenodo.publish(IMAGES, content)
    message = error_of(fetch, folder, zenodo.url)
    assert message.startswith(f"{folder / IMAGES}.zip: cannot be unpacked (")
    assert reason in message
    assert not (folder / IMAGES).exists() or files_in(folder / IMAGES) == {}
    beside = {path.name for path in folder.rglob("*")} | set(os.listdir(folder.parent))
    assert beside <= {"zenodo", IMAGES, f"{IMAGES}.zip"}


def test_an_archive_cut_at_any_length_is_refused(zenodo, folder):
    put_archives_by_hand(folder, zenodo)
    fetch(folder)
    shutil.rmtree(folder / IMAGES)
    archive = folder / f"{IMAGES}.zip"
    content = archive.read_bytes()
    end = len(content)
    for length in itertools.chain(range(0, end, 997), range(end - 50, end)):
        archive.write_bytes(content[:length])
        assert "is not the published archive" in error_of(fetch, folder)
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(ARCHIVES, IMAGES, hashlib.sha256(content[:length]).hexdigest())
            assert "cannot be unpacked" in error_of(fetch, folder)
        assert not (folder / IMAGES).exists()


# --- The command --------------------------------------------------------------------------------


@pytest.fixture
def run_command(run_copied):
    return partial(run_copied, "sam_lungs.data.zenodo")


def test_the_command_without_network_fails_in_one_line(run_command, tmp_path):
    ended = run_command()
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {dataset.RECORD_URL}/{IMAGES}.zip: cannot be downloaded")
    assert f"put {IMAGES}.zip into {tmp_path / 'datasets' / 'zenodo'} by hand" in line


def test_the_command_checks_what_a_mirror_sends(run_command, zenodo, folder):
    ended = run_command("--mirror", zenodo.url)
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"{zenodo.url}/{IMAGES}.zip: what was downloaded is not what was published" in line
    assert files_in(folder) == {}


def test_the_command_says_what_there_is(zenodo, folder, monkeypatch, capsys):
    monkeypatch.setattr(fetch, "__defaults__", (folder, None))
    monkeypatch.setattr(sys, "argv", ["dataset", "--mirror", zenodo.url])
    dataset.main()
    said = capsys.readouterr()
    assert said.out == f"{dataset.DATASET_FOLDER} holds the 20 volumes and their lung masks\n"
    assert said.err.splitlines() == [f"{name}: 20 of 20 volumes, 0 s left" for name in ARCHIVES]
    assert_complete(folder)
