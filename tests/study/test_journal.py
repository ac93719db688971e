import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_lungs.study.journal import Journal, read_journal
from sam_lungs.utils.errors import InputError

RECORDS = [
    {"run": {"options": {"model": "vit_l"}, "path": "a\nb é"}},
    {"slice": {"slice": 3, "dice": 0.1 + 0.2, "hd95_mm": None}},
    {"slice": {"slice": 4, "dice": 1e-300}, "mask": "eJxjYGBgAAAABAAB"},
]


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch):
    """Thousands of journals need not reach the disk."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


def write(path: Path, records: list[dict]) -> bytes:
    with Journal(path) as journal:
        for record in records:
            journal.append(record)
    return path.read_bytes() if path.exists() else b""


def test_what_was_written_is_read_and_more_follows(tmp_path):
    path = tmp_path / "a" / "journal"
    write(path, RECORDS[:2])
    assert read_journal(path) == RECORDS[:2]
    with Journal(path) as journal:
        assert journal.records == RECORDS[:2]
        journal.append(RECORDS[2])
    assert read_journal(path) == RECORDS


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children) | st.dictionaries(st.text(), children),
    max_leaves=8,
)


@given(st.lists(st.dictionaries(st.text(), JSON), max_size=4))
def test_every_number_and_text_comes_back_exactly(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("journal") / "journal"
    write(path, records)
    assert read_journal(path) == json.loads(json.dumps(records))


def test_cut_anywhere_it_holds_what_was_whole_before_and_goes_on(tmp_path):
    path = tmp_path / "journal"
    content = write(path, RECORDS)
    ends = [place + 1 for place, byte in enumerate(content) if byte == ord("\n")]
    assert len(ends) == 3
    for length in range(len(content) + 1):
        path.write_bytes(content[:length])
        whole = sum(end <= length for end in ends)
        with Journal(path) as journal:
            assert journal.records == RECORDS[:whole]
            for record in RECORDS[whole:]:
                journal.append(record)
        assert path.read_bytes() == content


def test_no_changed_byte_gives_another_record(tmp_path):
    path = tmp_path / "journal"
    content = write(path, RECORDS)
    for place in range(len(content)):
        for bits in (1, 0x20, 0x55, 0xFF):
            path.write_bytes(
                content[:place] + bytes([content[place] ^ bits]) + content[place + 1 :]
            )
            records = read_journal(path)
            assert records == RECORDS[: len(records)]
            assert len(records) < len(RECORDS)


def test_zeros_that_a_power_loss_leaves_at_the_end_are_dropped(tmp_path):
    path = tmp_path / "journal"
    content = write(path, RECORDS)
    path.write_bytes(content + b"\0" * 4096)
    with Journal(path) as journal:
        assert journal.records == RECORDS
    assert path.read_bytes() == content


def test_one_without_records_or_discarded_leaves_no_file(tmp_path):
    write(tmp_path / "journal", [])
    assert not (tmp_path / "journal").exists()
    with Journal(tmp_path / "journal") as journal:
        journal.append(RECORDS[0])
        journal.discard()
        assert (tmp_path / "journal").exists()
    assert not (tmp_path / "journal").exists()
    with Journal(tmp_path / "journal") as journal:
        journal.append(RECORDS[0])
        journal.clear()
    assert not (tmp_path / "journal").exists()


def test_nobody_else_can_open_it(tmp_path):
    with Journal(tmp_path / "journal") as journal:
        journal.append(RECORDS[0])
        with pytest.raises(BlockingIOError):
            Journal(tmp_path / "journal")
        assert read_journal(tmp_path / "journal") == RECORDS[:1]


def test_a_full_disk_keeps_what_was_written(tmp_path, monkeypatch):
    path = tmp_path / "journal"
    content = write(path, RECORDS[:2])
    pwrite = os.pwrite

    def write_a_little(descriptor, data, offset):
        if offset > len(content):
            raise OSError(28, "No space left on device")
        return pwrite(descriptor, data[:7], offset)

    with Journal(path) as journal:
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", write_a_little)
            with pytest.raises(InputError, match=r"No space left.*make room"):
                journal.append(RECORDS[2])
        assert journal.records == RECORDS[:2]
    assert path.read_bytes()[: len(content)] == content
    assert read_journal(path) == RECORDS[:2]
    write(path, RECORDS[2:])
    assert read_journal(path) == RECORDS


def test_what_cannot_be_a_journal_is_refused(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    for path in (tmp_path / "file" / "journal", tmp_path / "folder", tmp_path / "link"):
        with pytest.raises(InputError, match="cannot be written"):
            Journal(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_journal(tmp_path / "folder")
