"""Downloads over https from a list of hosts, resumed after interruptions and checked by hash.

The hosts are those in `HOSTS`, also after redirects, and a mirror that the user names.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from filelock import FileLock, Timeout

from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import check_regular, has_locks, sha256_of, sync
from sam_lungs.utils.progress import Progress

HOSTS = ("dl.fbaipublicfiles.com", "openi.nlm.nih.gov", "zenodo.org")  # and their subdomains
TIMEOUT_SECONDS = 60
MAX_BYTES = 4 << 30  # of a file of unknown size
BLOCK_BYTES = 1 << 20
MEGABYTE = 10**6


def download(
    url: str,
    path: Path,
    sha256: str | None,
    size_bytes: int | None = None,
    mirror: str | None = None,
    *,
    script: str,
) -> None:
    """Download a published file to `path`; return at once if `path` exists.

    sha256: in lower-case hexadecimal; None if the publisher names none, then the caller must check
        the file. size_bytes: None if unknown, then at most `MAX_BYTES`.
    mirror: URL of a folder on another server to download the file from, http or https.
    script: the command that takes `--mirror`, for messages.

    The received bytes are kept in a `.part` file beside `path`. An interrupted download is resumed
    by the next call. The file is moved to `path` if its SHA-256 is right, and is deleted otherwise.
    If another process is downloading the same file, this one waits for it.

    Raises `InputError` when the host is not allowed, cannot be reached, sends other bytes or
    stops sending, and when the file cannot be written.
    """
    if mirror is not None:
        url = f"{mirror.rstrip('/')}/{path.name}"
    _check_source(url, mirror)
    part = path.with_name(f"{path.name}.part")
    remedy = (
        f"try again later, or take another server with: {script} --mirror URL, or put {path.name}"
        f" into {path.parent} by hand and run the same command again"
    )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locked(part):
            if path.exists():
                return
            with _opened(part) as file:
                _complete(file, part, url, size_bytes, mirror, remedy)
            if sha256 is not None and (found := sha256_of(part)) != sha256:
                part.unlink()
                raise InputError(
                    f"{url}: the downloaded file is not the published one (SHA-256 {found}"
                    f" instead of {sha256}) and has been deleted; {remedy}"
                )
            sync(part)
            os.replace(part, path)
            sync(path.parent)
    except OSError as error:
        raise InputError(
            f"{part}: cannot be written ({error.strerror or error}); free some space or check its"
            " folder, then run the same command again to resume"
        ) from error


@contextmanager
def naming_others(urls: Iterable[str]) -> Iterator[None]:
    """Add to an `InputError` where to get the other files that are missing."""
    try:
        yield
    except InputError as error:
        others = ", ".join(urls)
        raise InputError(f"{error}; also missing: {others}" if others else str(error)) from error


def _check_source(url: str, mirror: str | None) -> None:
    """Raise `InputError` unless files may be downloaded from the server of `url`."""
    with suppress(ValueError):  # not a URL
        parts = urlsplit(url)
        host = parts.hostname or ""
        schemes = {"https"} if any(f".{host}".endswith(f".{named}") for named in HOSTS) else set()
        if mirror is not None and host == urlsplit(mirror).hostname:
            schemes = {"https", urlsplit(mirror).scheme} & {"http", "https"}
        # No user names: urllib would treat them as part of the host name.
        if host and parts.scheme in schemes and "@" not in parts.netloc:
            return
    raise InputError(
        f"{url}: not downloaded, because it is not https from {' or '.join(HOSTS)}; if you trust"
        " this server, give the URL of its folder, http or https, with --mirror"
    )


class _Redirects(HTTPRedirectHandler):
    """Follow redirects to allowed servers only."""

    def __init__(self, mirror: str | None) -> None:
        self._mirror = mirror

    def http_error_302(
        self, request: Request, answer: IO, code: int, reason: str, headers: HTTPMessage
    ) -> IO | None:
        answer.close()  # urllib would read all of it, and it may be endless
        return super().http_error_302(request, answer, code, reason, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, request: Request, answer: IO, code: int, reason: str, headers: HTTPMessage, url: str
    ) -> Request | None:
        _check_source(url, self._mirror)
        return super().redirect_request(request, answer, code, reason, headers, url)


@contextmanager
def locked(part: Path) -> Iterator[None]:
    """Hold the lock of a download; wait while another process holds it."""
    path = part.with_name(f".{part.name}.lock")
    lock = FileLock(path) if has_locks(path.parent) else None
    if lock:
        try:
            lock.acquire(timeout=0)
        except Timeout:
            print(f"{part}: waiting for another process that downloads it", file=sys.stderr)
            lock.acquire()
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        if lock:
            lock.release()


@contextmanager
def _opened(part: Path) -> Iterator[BinaryIO]:
    """Open a file for reading and writing, made if missing; remove it if it is empty at the end."""
    descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
    with open(descriptor, "r+b") as file:
        check_regular(part)
        try:
            yield file
        finally:
            if not os.fstat(descriptor).st_size:
                part.unlink()


def _complete(
    file: BinaryIO, part: Path, url: str, size_bytes: int | None, mirror: str | None, remedy: str
) -> None:
    """Download the missing bytes; reconnect after a broken connection if bytes were received."""
    opener = build_opener(_Redirects(mirror))
    most = size_bytes or MAX_BYTES
    held = file.seek(0, os.SEEK_END)
    if held > most:
        held = file.truncate(0)
    while held != size_bytes:
        request = Request(url, headers={"Range": f"bytes={held}-"} if held else {})
        try:
            response = opener.open(request, timeout=TIMEOUT_SECONDS)
        except (OSError, HTTPException, ValueError) as error:
            if isinstance(error, HTTPError):
                error.close()
                # No bytes follow. The hash decides whether the file is complete.
                if held and error.code == 416:
                    return
            # Of a URLError the reason alone, without "<urlopen error ...>"; in one line.
            cause = error if isinstance(error, HTTPError) else getattr(error, "reason", error)
            reason = " ".join(str(cause).split())
            raise InputError(f"{url}: cannot be downloaded ({reason}); {remedy}") from error

        with response:
            # A server without ranges sends the whole file.
            start = held if response.status == 206 else 0
            total = None if response.length is None else start + response.length
            # A proxy may send its own page instead, which must not overwrite the file.
            if total is not None and not (size_bytes or held) <= total <= most:
                expected = f"{size_bytes:,}" if size_bytes else f"{held:,} to {most:,}"
                raise InputError(
                    f"{url}: the server offers {total:,} bytes instead of {expected}; {remedy}"
                )
            file.seek(start)
            broken = _copy(response, file, part.stem, total or size_bytes)
        reached = file.tell()
        if broken is None:
            file.truncate()
            return
        if reached <= held:
            raise InputError(
                f"{part}: the download stopped at {reached:,} of {total or most:,} bytes"
                f" ({broken}); run the same command again to resume"
            ) from broken
        held = reached


def _copy(response: HTTPResponse, file: BinaryIO, name: str, total: int | None) -> Exception | None:
    """Write a response to a file from its current position, up to `total` bytes.

    Returns the error that broke the connection, or None.
    """
    most = total or MAX_BYTES
    reached = file.tell()
    with Progress(name, most // MEGABYTE, reached // MEGABYTE, unit="megabyte") as progress:
        while reached < most:
            try:
                block = response.read1(min(BLOCK_BYTES, most - reached))
                if not block and total:
                    raise ConnectionError("the connection was closed")
            except (OSError, HTTPException) as error:
                return error
            if not block:
                break
            file.write(block)
            file.flush()
            megabytes = (reached + len(block)) // MEGABYTE - reached // MEGABYTE
            if megabytes:
                progress.update(megabytes)
            reached += len(block)
    return None
