"""Atomic writes, locks of folders, checks of paths, and hashes."""

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from uuid import uuid4

from filelock import FileLock, Timeout

from sam_lungs.utils.errors import InputError

PARTIAL = ".partial."
LOCK_NAME = ".lock"
NO_LOCKS = (errno.ENOSYS, errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP)


class FolderInUseError(InputError):
    """Another process holds the folder's lock."""


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, made if missing, to write to.

    When the block ends without an exception, the file is synced and moved to `path`. Otherwise it
    is removed, and `path` is not changed. The temporary name has the same suffix, from which some
    writers derive the format.

    Raises `InputError` when the folder or file cannot be written.
    """
    temporary = path.with_name(f"{PARTIAL}{uuid4().hex[:8]}.{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield temporary
            sync(temporary)
            os.replace(temporary, path)
            sync(path.parent)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
    except OSError as error:
        reason = error.strerror or error
        raise InputError(f"{path}: cannot be written ({reason}); choose another folder") from error


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk (fsync).

    Raises `OSError` when this fails, but not when the file system does not support it.
    """
    is_folder = path.is_dir()
    descriptor = os.open(path, os.O_RDONLY if is_folder else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if not is_folder and error.errno != errno.EINVAL:
            raise
    finally:
        os.close(descriptor)


@contextmanager
def locked_folder(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, made if missing, so that no other process works in it.

    The lock ends with the process, also after a kill. Partial files that a killed process left in
    the folder are removed. On a file system without locks a warning is printed and the lock is not
    taken.

    Raises `FolderInUseError` when another process holds the lock, `InputError` when the folder
    cannot be written.
    """
    path = folder / LOCK_NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(path, timeout=0) if has_locks(folder) else None
        if lock:
            lock.acquire()
    except Timeout:
        raise FolderInUseError(
            f"{folder}: another process is working in it; wait for it, or choose another folder"
        ) from None
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written to ({error.strerror}); choose another folder"
        ) from error
    try:
        for leftover in folder.rglob(f"{PARTIAL}*"):
            shutil.rmtree(leftover, ignore_errors=True)
            with suppress(OSError):  # harmless; rmtree has removed it if it was a folder
                leftover.unlink()
        yield
    finally:
        if lock:
            lock.release()


def has_locks(folder: Path) -> bool:
    """Return whether the file system of a folder has locks.

    FileLock would wait forever on ENOLCK; on ENOSYS it uses a file that a kill does not remove.
    """
    # A separate file: a lock on the real one would block another process that starts.
    probe = folder / f"{PARTIAL}{uuid4().hex[:8]}{LOCK_NAME}"
    descriptor = os.open(probe, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        # Not LOCK_UN: NFS without a lock server fails only when a lock is taken.
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        _warn_of_no_locks()
        return False
    finally:
        os.close(descriptor)
        probe.unlink(missing_ok=True)
    return True


@cache
def _warn_of_no_locks() -> None:
    """Print the warning once per process."""
    print(
        "warning: the file system has no locks; do not run two processes on the same volumes",
        file=sys.stderr,
    )


def remove(path: Path) -> None:
    """Remove a file if it is there; raises `InputError` when it cannot be removed."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be removed ({error.strerror}); check its folder"
        ) from error


def check_writable(folder: Path) -> None:
    """Raise `InputError` when a folder cannot be written to or created; creates nothing."""
    existing = next(path for path in (folder, *folder.parents) if os.path.exists(path))
    if not (existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)):
        raise InputError(f"{folder}: cannot be written to; choose another folder")


def check_regular(path: Path) -> None:
    """Raise `InputError` unless `path` is a regular file; reading a pipe or device may never end.

    Raises `OSError` when there is nothing at `path`.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise InputError(f"{path}: not a regular file; check the path")


def check_name(path: Path) -> None:
    """Raise `InputError` when a path is not UTF-8; tables and figures cannot hold its name."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise InputError(f"{path}: its name is not UTF-8; rename it") from None


def read_text(path: Path) -> str:
    """Return the text of a UTF-8 file; raises `InputError` when it cannot be read."""
    try:
        check_regular(path)
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; check the path") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); check the path") from error
    except UnicodeDecodeError:
        raise InputError(f"{path}: is not UTF-8 text; save it as UTF-8") from None


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
