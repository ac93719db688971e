"""Files that are either whole or absent, written by one process at a time; what identifies them."""

import fcntl
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sam_lungs.utils.errors import InputError

SIGNATURE_BYTES = 32


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, made if missing, to write to.

    The file moves to `path`, and onto the disk, when the block ends well; when it does not, nothing
    stays behind and what was at `path` before is untouched. What a killed process left, the next
    one that writes `path` takes over; of two that write it at once the second waits. The temporary
    name keeps the suffix, which some writers take the format from.

    Raises `InputError` when the folder or file cannot be written.
    """
    temporary = path.with_name(f".partial.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = open_locked(temporary, wait=True)
        try:
            yield temporary
            os.fsync(descriptor)
            os.replace(temporary, path)
            sync_folder(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        finally:
            os.close(descriptor)
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be written ({reason}); choose another place") from error


def open_locked(path: Path, wait: bool) -> int:
    """Open a file to read and write, made if missing, and keep all other processes off it.

    Returns the file's descriptor. The lock goes with it, so no dead process holds on to one; over
    NFS too, where Linux makes of it a lock of the server.

    Raises `BlockingIOError` when another process has it, unless told to wait; `OSError` when the
    file cannot be opened, is a link, or its file system has no locks.
    """
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            # Who had it before may have moved or removed it.
            with suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), os.lstat(path)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes that ask for it out of a folder, made if missing.

    Raises `InputError` when another one is in it, and when the folder cannot be written.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = open_locked(path, wait=False)
    except BlockingIOError:
        raise InputError(
            f"{folder}: another process is at work there; let it finish, or choose another folder"
        ) from None
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written to ({error.strerror}); choose another folder"
        ) from error
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Let the names in a folder survive a power loss, where its file system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    with suppress(OSError):
        os.fsync(descriptor)
    os.close(descriptor)


def remove(path: Path) -> None:
    """Remove a file if it is there; raises `InputError` when it cannot be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be removed ({error.strerror}); check its folder"
        ) from error


def check_writable(folder: Path) -> None:
    """Raise `InputError` when a folder cannot be written to, or made; makes nothing itself."""
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise InputError(f"{folder}: cannot be written to; choose another folder")


def check_regular(path: Path) -> None:
    """Raise `InputError` for what reading may never end of: a pipe, a device, a folder.

    Raises `OSError` when there is nothing at `path`.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise InputError(f"{path}: not a regular file; check the path")


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file's bytes in lower-case hexadecimal.

    Raises `InputError` when the file cannot be read, or is not a regular one.
    """
    digest = hashlib.sha256()
    try:
        check_regular(path)
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return digest.hexdigest()


def write_signed(path: Path, data: bytes, label: str = "") -> None:
    """Write data that `read_signed` returns when asked with the same label.

    Raises `InputError` when it cannot be written; what was at `path` before is then untouched.
    """
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(data)
        file.write(_signature(data, label))


def read_signed(path: Path, label: str = "") -> bytes | None:
    """Return what `write_signed` wrote; `None` if there is nothing, or not exactly that.

    Raises `InputError` when it cannot be read.
    """
    try:
        check_regular(path)
        content = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    data = content[:-SIGNATURE_BYTES]
    return data if content[len(data) :] == _signature(data, label) else None


def _signature(data: bytes, label: str) -> bytes:
    """The SHA-256 of data and of what it is, SIGNATURE_BYTES long."""
    digest = hashlib.sha256(f"{label}\n".encode())
    digest.update(data)
    return digest.digest()
