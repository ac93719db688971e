import hashlib
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from conftest import ROOT

from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import check_writable, open_locked, replacing, sha256_of


def test_the_file_appears_whole_in_a_folder_made_for_it(tmp_path):
    path = tmp_path / "a" / "b" / "table.csv"
    with replacing(path) as temporary:
        temporary.write_text("1\n")
        assert temporary.parent == path.parent
        assert temporary.suffix == path.suffix
        assert not path.exists()
    assert path.read_text() == "1\n"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("failure", [OSError(28, "No space left on device"), KeyError("bug")])
def test_a_failure_keeps_what_was_there_and_leaves_nothing_else(tmp_path, failure):
    path = tmp_path / "table.csv"
    path.write_text("before")
    told = InputError if isinstance(failure, OSError) else KeyError

    def write_half():
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(told) as raised:
        write_half()
    if told is InputError:
        assert (
            str(raised.value)
            == f"{path}: cannot be written (No space left on device); choose another place"
        )
    assert path.read_text() == "before"
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_where_the_folder_should_be_is_an_input_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"), replacing(tmp_path / "file" / "x"):
        pass


def test_check_writable_makes_nothing(tmp_path):
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


def test_what_a_killed_process_left_is_taken_over(tmp_path):
    (tmp_path / ".partial.table.csv").write_text("half of a much longer table")
    with replacing(tmp_path / "table.csv") as temporary:
        temporary.write_text("1\n")
    assert (tmp_path / "table.csv").read_text() == "1\n"
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_two_writers_at_once_take_turns(tmp_path):
    path = tmp_path / "table.csv"
    mistakes = []

    def write(text):
        with replacing(path) as temporary:
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


def test_nothing_is_written_through_a_planted_link(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (tmp_path / ".partial.table.csv").symlink_to(victim)
    with pytest.raises(InputError, match="cannot be written"), replacing(tmp_path / "table.csv"):
        pass
    (tmp_path / ".partial.table.csv").unlink()
    (tmp_path / "table.csv").symlink_to(victim)
    with replacing(tmp_path / "table.csv") as temporary:
        temporary.write_text("1\n")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "table.csv").is_symlink()


LOCK = "from pathlib import Path; import os, sys; from sam_lungs.utils.files import open_locked; "


def test_a_lock_keeps_other_processes_off_and_dies_with_its_own(tmp_path):
    path = tmp_path / "lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", LOCK + "open_locked(Path(sys.argv[1]), False); print(1, flush=True);"
         " sys.stdin.read()", path],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT,
    )  # fmt: skip
    holder.stdout.readline()
    with pytest.raises(BlockingIOError):
        open_locked(path, wait=False)
    holder.kill()
    holder.communicate()
    os.close(open_locked(path, wait=False))


def test_a_lock_on_a_file_that_was_moved_away_is_none(tmp_path):
    """The next one to wait gets the file that has the name now."""
    path = tmp_path / "lock"
    first, got = open_locked(path, wait=False), []
    waiting = threading.Thread(target=lambda: got.append(open_locked(path, wait=True)))
    waiting.start()
    time.sleep(0.1)
    path.rename(tmp_path / "moved")
    os.close(first)
    waiting.join()
    assert os.path.samestat(os.fstat(got[0]), path.stat())
    os.close(got[0])


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_reading_may_never_end_of_is_refused(tmp_path, make):
    make(tmp_path / "file")
    with pytest.raises(InputError, match="not a regular file"):
        sha256_of(tmp_path / "file")
