import hashlib
import os

import pytest

from sam_lungs.errors import InputError
from sam_lungs.files import check_writable, replacing, sha256_of


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
