"""The X-rays are downloaded, unpacked and checked, with a server on this machine."""

import hashlib
import io
import os
import signal
import struct
import subprocess
import sys
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from server import Server, answers, error_of, files_in

from sam_lungs.data import archives, montgomery
from sam_lungs.data.manifest import read_dataset
from sam_lungs.data.montgomery import ARCHIVE, CASES, fetch
from sam_lungs.utils.errors import InputError

RECORD = f"{ARCHIVE}.sha256"
# Two X-rays and two masks of each lung: most tests do without the others.
FILES = montgomery.FILES[::69]
BESIDE = ["MontgomerySet/CXR_png/Thumbs.db", "__MACOSX/MontgomerySet/._CXR_png", "MontgomerySet/"]


def content_of(name: str, kind: str = "") -> bytes:
    return f"{kind} {name} ".encode() * 20


def zip_of(names=FILES, kind="", compression=zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name in names:
            archive.writestr(name, content_of(name, kind))
    return file.getvalue()


def record_of(content: bytes) -> bytes:
    return f"{hashlib.sha256(content).hexdigest()}  {ARCHIVE}\n".encode()


CONTENT = zip_of([*FILES, *BESIDE])


@pytest.fixture
def folder(tmp_path: Path, few_files) -> Path:
    return tmp_path / "datasets" / "montgomery"


@pytest.fixture
def few_files(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(montgomery, "FILES", FILES)


@pytest.fixture
def openi(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        server.files = {ARCHIVE: CONTENT}
        yield server


def put(folder: Path, content: bytes = CONTENT) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ARCHIVE).write_bytes(content)
    return folder / ARCHIVE


def unpacked(folder: Path) -> dict[str, bytes]:
    paths = folder.glob("MontgomerySet/**/*.png")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def assert_complete(folder: Path, content: bytes = CONTENT) -> None:
    assert unpacked(folder) == {name: content_of(name) for name in FILES}
    assert (folder / RECORD).read_bytes() == record_of(content)


def test_the_names_are_those_of_the_paper(real_data):
    assert (real_data / "montgomery/items_138.txt").read_text().split() == list(CASES)


# Downloading and unpacking


def test_the_archive_is_downloaded_recorded_and_unpacked_once(openi, folder, capsys):
    fetch(folder, openi.url)
    assert_complete(folder)
    (line,) = capsys.readouterr().out.splitlines()
    assert hashlib.sha256(CONTENT).hexdigest() in line
    assert f"recorded in {RECORD}" in line
    assert f"torch-em names another, {montgomery.TORCH_EM_SHA256}" in line
    fetch(folder)
    (folder / ARCHIVE).unlink()
    fetch(folder)
    assert_complete(folder)
    assert capsys.readouterr().out == ""
    assert openi.ranges == [None]
    assert not (folder / BESIDE[0]).exists()


def test_sha256sum_reads_the_record(folder):
    put(folder)
    fetch(folder)
    assert_complete(folder)
    subprocess.run(["sha256sum", "--check", "--status", RECORD], cwd=folder, check=True)


def test_files_that_are_missing_or_of_another_size_are_unpacked_again(openi, folder):
    fetch(folder, openi.url)
    (folder / FILES[3]).unlink()
    (folder / FILES[5]).write_bytes(b"half")
    untouched = (folder / FILES[0]).stat().st_mtime_ns
    fetch(folder)
    assert_complete(folder)
    assert (folder / FILES[0]).stat().st_mtime_ns == untouched


def test_without_the_archive_a_missing_file_is_downloaded_again(openi, folder):
    fetch(folder, openi.url)
    (folder / ARCHIVE).unlink()
    (folder / FILES[3]).unlink()
    fetch(folder, openi.url)
    assert_complete(folder)
    assert openi.ranges == [None, None]


def test_an_interrupted_download_is_resumed(openi, folder):
    put(folder, CONTENT[:1000]).rename(folder / f"{ARCHIVE}.part")
    fetch(folder, openi.url)
    assert_complete(folder)
    assert openi.ranges == ["bytes=1000-"]


@pytest.mark.parametrize("half", ["", "target.write(source.read(9)); target.flush(); "])
def test_unpacking_resumes_after_a_kill(folder, half):
    """It is killed at its third file, twice, before or in the middle of writing it."""
    put(folder)
    dies = f"""
calls = 0
copy = shutil.copyfileobj
def dies(source, target):
    global calls
    calls += 1
    if calls == 3:
        {half}os.kill(os.getpid(), signal.SIGKILL)
    copy(source, target)
shutil.copyfileobj = dies
"""
    code = f"""
import os, shutil, signal
from pathlib import Path
from sam_lungs.data import montgomery
{dies}
montgomery.FILES = {FILES!r}
montgomery.fetch(Path({str(folder)!r}))
"""
    for count in (2, 4):
        ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True)
        assert ended.returncode == -signal.SIGKILL
        whole = {name: data for name, data in unpacked(folder).items() if "/." not in name}
        assert whole == {name: content_of(name) for name in FILES[:count]}
        assert not (folder / RECORD).exists()
    fetch(folder)
    assert_complete(folder)
    assert not list(folder.rglob(".partial.*"))


# Other archives


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_changed_archive_is_refused_until_the_record_is_deleted(openi, folder, by_hand):
    fetch(folder, openi.url)
    changed = zip_of(FILES, "new")
    if by_hand:
        put(folder, changed)
    else:
        (folder / ARCHIVE).unlink()
        (folder / FILES[0]).unlink()
        openi.files[ARCHIVE] = changed
    before = unpacked(folder)
    message = error_of(fetch, folder, openi.url)
    assert message.startswith(f"{folder / ARCHIVE}: another archive (SHA-256 ")
    assert f"which {RECORD} names" in message
    assert unpacked(folder) == before
    (folder / ARCHIVE).unlink()
    (folder / RECORD).unlink()
    openi.files[ARCHIVE] = changed
    (folder / FILES[0]).unlink(missing_ok=True)
    fetch(folder, openi.url)
    assert unpacked(folder) == {name: content_of(name, "new") for name in FILES}
    assert (folder / RECORD).read_bytes() == record_of(changed)


def damaged_entry() -> bytes:
    """Change a byte in the content of the fifth file."""
    start = CONTENT.index(content_of(FILES[4]))
    return CONTENT[:start] + b"!" + CONTENT[start + 1 :]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a valid zip archive"),
        (b"<html>Log in to this network</html>", "not a valid zip archive"),
        (CONTENT[:1000], "not a valid zip archive"),
        (damaged_entry(), "Bad CRC-32"),
        (zip_of(["volume_001.nii.gz"]), f"it lacks 6 files, such as {FILES[0]};"),
        (zip_of(FILES[:-1]), f"it lacks 1 file, such as {FILES[-1]};"),
        (zip_of([f"../{name}" for name in FILES]), "it lacks 6 files"),
        (zip_of([f"/{name}" for name in FILES]), "it lacks 6 files"),
        (zip_of(compression=zipfile.ZIP_LZMA), "an unusual compression"),
    ],
    ids=["empty", "page", "cut", "damaged", "other", "incomplete", "above", "root", "lzma"],
)
def test_another_archive_is_refused_and_nothing_is_recorded(folder, content, words):
    archive = put(folder, content)
    message = error_of(fetch, folder)
    assert message.startswith(f"{archive}: ")
    assert words in message
    assert "delete it and run the same command again" in message
    assert not (folder / RECORD).exists()
    assert os.listdir(folder.parent) == ["montgomery"]
    # The remedy.
    put(folder)
    fetch(folder)
    assert_complete(folder)


def claiming(size: int) -> bytes:
    """Return the archive, with another uncompressed size of every file in its directory."""
    content = bytearray(zip_of(compression=zipfile.ZIP_DEFLATED))
    start = content.index(b"PK\x01\x02")
    while (start := content.find(b"PK\x01\x02", start)) >= 0:
        struct.pack_into("<I", content, start + 24, size)
        start += 4
    return bytes(content)


def test_an_archive_that_claims_too_much_is_not_unpacked(folder):
    put(folder, claiming(1 << 30))
    message = error_of(fetch, folder)
    assert f"{6 << 30:,} bytes unpacked, so it is not the published archive" in message
    assert unpacked(folder) == {}


def test_a_bomb_is_cut_to_the_size_that_it_claims(tmp_path, monkeypatch):
    """100 MB of zeros in an entry that claims 1,000 bytes."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb", bytes(100_000_000))
    content = bytearray(file.getvalue())
    struct.pack_into("<I", content, content.index(b"PK\x01\x02") + 24, 1000)
    path = tmp_path / "bomb.zip"
    path.write_bytes(content)
    largest = 0

    def copy(source, target):
        nonlocal largest
        while block := source.read(1 << 16):
            largest = max(largest, target.write(block))

    monkeypatch.setattr(archives.shutil, "copyfileobj", copy)
    with pytest.raises(InputError, match="Bad CRC-32"), archives.opened(path) as archive:
        archives.unpack(archive, {tmp_path / "out": archive.getinfo("bomb")}, tmp_path, "file")
    assert largest <= 1000
    assert not (tmp_path / "out").exists()


@settings(max_examples=60)
@given(st.data())
def test_any_damage_gives_whole_files_or_an_error(tmp_path_factory, data):
    """Bytes of an archive are changed, and it may be cut; no wrong file is ever unpacked."""
    folder = tmp_path_factory.mktemp("any")
    path = folder / "a.zip"
    content = bytearray(zip_of(FILES[:3], compression=zipfile.ZIP_DEFLATED))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content[: data.draw(st.integers(len(content) // 2, len(content)))])
    with suppress(InputError), archives.opened(path) as archive:
        entries = [entry for entry in archive.infolist() if entry.filename in FILES]
        targets = {folder / str(index): entry for index, entry in enumerate(entries)}
        archives.unpack(archive, targets, folder, "file")
    known = [content_of(name) for name in FILES[:3]]
    for name, held in files_in(folder).items():
        assert held in known or name in ("a.zip", ".lock")


def test_without_a_network_the_error_names_the_file_to_copy_and_its_folder(openi, folder):
    openi.answer = answers(503)
    message = error_of(fetch, folder, openi.url)
    assert message.startswith(f"{openi.url}/{ARCHIVE}: cannot be downloaded")
    assert f"put {ARCHIVE} into {folder} by hand" in message


@pytest.mark.parametrize("name", [ARCHIVE, RECORD])
@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_a_path_of_the_wrong_kind_is_refused(folder, name, make):
    put(folder)
    (folder / name).unlink(missing_ok=True)
    make(folder / name)
    error_of(fetch, folder)


# The command


def test_without_a_network_the_command_fails_in_one_line(run_copied, tmp_path):
    ended = run_copied("sam_lungs.data.montgomery")
    assert (ended.returncode, ended.stdout) == (1, "")
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {montgomery.URL}: cannot be downloaded")
    assert f"put {ARCHIVE} into {tmp_path / 'datasets/montgomery'} by hand" in line
    assert "scripts/download_dataset.sh montgomery --mirror URL" in line


def test_the_whole_dataset_from_a_mirror(run_copied, openi, tmp_path):
    """The command unpacks all files, and the dataset file finds them."""
    openi.files[ARCHIVE] = zip_of(montgomery.FILES)
    ended = run_copied("sam_lungs.data.montgomery", "--mirror", openi.url)
    folder = tmp_path / "datasets" / "montgomery"
    assert ended.returncode == 0
    recorded, done = ended.stdout.splitlines()
    assert recorded.startswith(f"{folder / ARCHIVE}: its publisher names no SHA-256")
    assert done == f"{folder} holds the 138 X-rays and their lung masks"
    assert ended.stderr.splitlines()[-1].endswith("montgomery: 414 of 414 files, 0 s left")
    assert unpacked(folder) == {name: content_of(name) for name in montgomery.FILES}

    path = folder.parent / "montgomery.yml"
    path.write_bytes((ROOT / "datasets/montgomery.yml").read_bytes())
    dataset = read_dataset(path)
    assert dataset.problems == []
    assert [case.name for case in dataset.cases] == list(CASES)
    assert len({case.patient for case in dataset.cases}) == 138
    for case in dataset.cases:
        files = [case.image_path, *case.masks_paths]
        assert [path.stem for path in files] == [case.name] * 3
        assert [path.parent.name for path in files] == ["CXR_png", "leftMask", "rightMask"]
        assert case.reading.objects == {"left": (1,), "right": (2,)}
        assert case.reading.window == "none"
