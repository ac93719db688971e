"""Records that outlive the process that writes them, so that a killed run can go on.

A journal is a file of lines, each a record's CRC-32 and the record as JSON. A line that is broken
off or damaged is as good as none, and so are those after it.
"""

import json
import os
import zlib
from pathlib import Path

from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import open_locked, sync_folder


class Journal:
    """A journal that is open for appending; no other process has it open. Use as a context.

    records: what was written, in order.
    """

    def __init__(self, path: Path) -> None:
        """Open a journal, made if missing, and drop what is damaged at its end.

        Raises `BlockingIOError` when another process has it open, and `InputError` when it cannot
        be written.
        """
        self.path = path
        self._discarded = False
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._descriptor = open_locked(path, wait=False)
            self.records, self._size = _whole(path.read_bytes())
            os.ftruncate(self._descriptor, self._size)
            sync_folder(path.parent)
        except BlockingIOError:
            raise
        except OSError as error:
            raise self._cannot_be_written(error) from error

    def __enter__(self) -> "Journal":
        return self

    def __exit__(self, *_: object) -> None:
        """Let go of it; one without records, or discarded, leaves no file."""
        if self._discarded or not self._size:
            # Locked until it is gone: whoever waits for it makes a new one.
            self.path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def append(self, record: dict) -> None:
        """Put a record, anything JSON holds, on the disk.

        Raises `InputError` when it cannot be written; what was written before stays valid.
        """
        rest = line = _line(record)
        try:
            while rest:
                rest = rest[os.pwrite(self._descriptor, rest, self._size + len(line) - len(rest)) :]
            os.fsync(self._descriptor)
        except OSError as error:
            raise self._cannot_be_written(error) from error
        self._size += len(line)
        self.records.append(record)

    def clear(self) -> None:
        """Drop all records."""
        self.records, self._size = [], 0
        os.ftruncate(self._descriptor, 0)

    def discard(self) -> None:
        """Leave no file when it is let go of: its records are kept elsewhere now."""
        self._discarded = True

    def _cannot_be_written(self, error: OSError) -> InputError:
        return InputError(
            f"{self.path}: cannot be written ({error.strerror}); what was finished before stays"
            " valid: make room or choose another place, and run it again"
        )


def read_journal(path: Path) -> list[dict]:
    """Return the records of a journal that another process may be writing; none without one."""
    try:
        return _whole(path.read_bytes())[0]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error


def _line(record: dict) -> bytes:
    text = json.dumps(record).encode()
    return b"%08x %s\n" % (zlib.crc32(text), text)


def _whole(content: bytes) -> tuple[list[dict], int]:
    """Return the records before the first line that is not whole, and where that line begins."""
    records, size = [], 0
    for line in content.splitlines(keepends=True):
        crc, _, text = line.partition(b" ")
        if not line.endswith(b"\n") or crc != b"%08x" % zlib.crc32(text[:-1]):
            break
        records.append(json.loads(text))
        size += len(line)
    return records, size
