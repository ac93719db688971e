import errno
import fcntl
import hashlib
import os
import subprocess
import sys
import threading
import time
from contextlib import nullcontext
from pathlib import Path

import pytest
from conftest import ROOT

from sam_lungs.utils import files
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import (
    FolderInUseError,
    atomic_write,
    check_writable,
    locked_folder,
    sha256_of,
    sync,
)


def test_atomic_write_creates_the_folder_and_the_file(tmp_path):
    path = tmp_path / "a" / "b" / "table.csv"
    with atomic_write(path) as temporary:
        temporary.write_text("1\n")
        assert temporary.parent == path.parent
        assert temporary.suffix == path.suffix
        assert not path.exists()
    assert path.read_text() == "1\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyError("bug")])
def test_a_failure_keeps_the_earlier_file_and_removes_the_temporary_one(tmp_path, failure):
    path = tmp_path / "table.csv"
    path.write_text("before")
    expected = InputError if isinstance(failure, OSError) else KeyError

    def write_half():
        with atomic_write(path) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(expected) as raised:
        write_half()
    if expected is InputError:
        assert (
            str(raised.value)
            == f"{path}: cannot be written (No space left on device); choose another folder"
        )
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_in_place_of_the_folder_is_an_input_error(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(InputError, match="cannot be written"),
        atomic_write(tmp_path / "file" / "x"),
    ):
        pass


def test_check_writable_creates_nothing(tmp_path):
    check_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


def test_check_writable_refuses_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").touch()
    for folder in (tmp_path / "file", tmp_path / "file" / "results"):
        with pytest.raises(InputError, match="choose another folder"):
            check_writable(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_check_writable_refuses_a_read_only_folder(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match="choose another folder"):
        check_writable(tmp_path / "results")


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_sha256_of_files_around_the_block_size(tmp_path, size):
    content = os.urandom(size)
    (tmp_path / "file").write_bytes(content)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(content).hexdigest()


def test_sha256_of_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        sha256_of(tmp_path / "missing")


def test_concurrent_writers_do_not_mix_their_content(tmp_path):
    path = tmp_path / "table.csv"
    mistakes = []

    def write(text):
        with atomic_write(path) as temporary:
            temporary.write_text(text)
            time.sleep(0.01)
            if temporary.read_text() != text:
                mistakes.append(text)

    writers = [threading.Thread(target=write, args=(f"{number}\n" * 99,)) for number in range(20)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert mistakes == []
    assert len(set(path.read_text().split())) == 1
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_is_replaced_and_its_target_untouched(tmp_path):
    (tmp_path / "target").write_text("precious")
    (tmp_path / "table.csv").symlink_to(tmp_path / "target")
    with atomic_write(tmp_path / "table.csv") as temporary:
        temporary.write_text("1\n")
    assert (tmp_path / "target").read_text() == "precious"
    assert not (tmp_path / "table.csv").is_symlink()


@pytest.mark.parametrize(
    ("number", "raises"), [(errno.EINVAL, False), (errno.ENOSPC, True), (errno.EIO, True)]
)
def test_sync_ignores_an_unsupported_call_but_not_a_full_disk(
    tmp_path, monkeypatch, number, raises
):
    def fail(descriptor):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    (tmp_path / "file").touch()
    sync(tmp_path)
    with pytest.raises(OSError, match=os.strerror(number)) if raises else nullcontext():
        sync(tmp_path / "file")


HOLD = """
import sys
from pathlib import Path
from sam_lungs.utils.files import locked_folder
with locked_folder(Path(sys.argv[1])):
    print("locked", flush=True)
    sys.stdin.read()
"""


def test_a_lock_excludes_other_processes_until_its_process_ends(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "a"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    ) as holder:
        holder.stdout.readline()
        with (
            pytest.raises(FolderInUseError, match="another process is working in it"),
            locked_folder(tmp_path / "a"),
        ):
            pass
        holder.kill()
        holder.wait()
        with locked_folder(tmp_path / "a"):
            pass


def test_a_lock_removes_the_partial_files_of_a_killed_process(tmp_path):
    (tmp_path / "debug").mkdir()
    (tmp_path / "debug" / ".partial.0123.picture.png").write_text("half")
    (tmp_path / ".partial.unfinished").mkdir()
    (tmp_path / ".partial.unfinished" / "slices.jsonl").touch()
    (tmp_path / "table.csv").touch()
    with locked_folder(tmp_path):
        assert {path.name for path in tmp_path.rglob("*")} == {".lock", "debug", "table.csv"}


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP])
def test_without_locks_there_is_one_warning(tmp_path, monkeypatch, capsys, number):
    # NFS releases a lock that is not held without an error, also when it cannot lock.
    def fail(descriptor, operation):
        if operation != fcntl.LOCK_UN:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(files.fcntl, "flock", fail)
    files._warn_of_no_locks.cache_clear()
    for _ in range(3):
        with locked_folder(tmp_path), locked_folder(tmp_path):
            pass
    error = capsys.readouterr().err
    assert error.startswith("warning: the file system has no locks")
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_locked_is_an_input_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written to"), locked_folder(tmp_path / "file"):
        pass


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_a_file_that_is_not_regular_is_refused(tmp_path, make):
    make(tmp_path / "file")
    with pytest.raises(InputError, match="not a regular file"):
        sha256_of(tmp_path / "file")
