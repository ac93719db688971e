"""Files from the network: from named servers only, continued after any interruption, and checked.

They come over https from the servers in `HOSTS`, also after redirects, unless a mirror is named.
"""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPException, HTTPMessage, HTTPResponse
from pathlib import Path
from typing import IO, BinaryIO
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, OpenerDirector, Request, build_opener

from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import check_regular, open_locked, sha256_of, sync_folder
from sam_lungs.utils.progress import Progress

HOSTS = ("dl.fbaipublicfiles.com", "zenodo.org")  # and their subdomains
TIMEOUT_SECONDS = 60
MAX_BYTES = 4 << 30  # of a file whose size is not known beforehand
BLOCK_BYTES = 1 << 20
MEGABYTE = 10**6


def add_mirror_option(parser: ArgumentParser) -> None:
    """Let a command be told another server than the official one."""
    parser.add_argument(
        "--mirror",
        metavar="URL",
        help="folder on another server, http or https, that has the files under their official "
        "names; what comes from there is checked all the same",
    )


def download(
    url: str, path: Path, sha256: str, size_bytes: int | None = None, mirror: str | None = None
) -> None:
    """Bring what is published at `url` to `path`, unless something is there.

    sha256: in lower-case hexadecimal; size_bytes: None where it is not known, and then at most
    `MAX_BYTES`; mirror: the URL of a folder that has the file too, to take it from there.

    What has come is kept in a `.part` file beside `path`, whatever stops the download, and the next
    call continues it. It moves to `path`, and onto the disk, when its SHA-256 is right, and is
    deleted when it is not. Of two processes that download the same file the second waits.

    Raises `InputError` when the server is none to download from, cannot be reached, stops or
    sends other bytes than those published, or when the file cannot be written.
    """
    if mirror is not None:
        url = f"{mirror.rstrip('/')}/{path.name}"
    _check_source(url, mirror)
    part = path.with_name(f"{path.name}.part")
    remedy = f"try again later, or put {path.name} into {path.parent} by hand"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _only_writer(part) as file:
            if path.exists():  # by the process that was waited for
                return
            _complete(file, part, url, size_bytes, build_opener(_Redirects(mirror)), remedy)
            held_sha256 = sha256_of(part)
            if held_sha256 != sha256:
                file.truncate(0)
                raise InputError(
                    f"{url}: what was downloaded is not what was published (SHA-256 {held_sha256} "
                    f"instead of {sha256}) and has been deleted: {remedy}"
                )
            os.fsync(file.fileno())
            os.replace(part, path)
            sync_folder(path.parent)
    except OSError as error:
        raise InputError(
            f"{part}: cannot be written ({error.strerror or error}): make room for it or mend its "
            "folder, then run the same command again to continue"
        ) from error


def _check_source(url: str, mirror: str | None) -> None:
    """Raise `InputError` unless files may be downloaded from the server of `url`."""
    with suppress(ValueError):  # of what is no URL
        asked = urlsplit(url)
        host = asked.hostname or ""
        schemes = {"https"} if any(f".{host}".endswith(f".{named}") for named in HOSTS) else set()
        if mirror is not None and host == urlsplit(mirror).hostname:
            schemes = {"https", urlsplit(mirror).scheme} & {"http", "https"}
        # urllib takes a user's name, which nobody needs here, for part of the host's.
        if host and asked.scheme in schemes and "@" not in asked.netloc:
            return
    raise InputError(
        f"{url}: not downloaded, because it is not https from {' or '.join(HOSTS)}: if you "
        "trust it, name its folder, http or https, with --mirror"
    )


class _Redirects(HTTPRedirectHandler):
    """Follows redirects to servers that files may be downloaded from, and to no others."""

    def __init__(self, mirror: str | None) -> None:
        self._mirror = mirror

    def http_error_302(
        self, request: Request, answer: IO, code: int, said: str, headers: HTTPMessage
    ) -> IO | None:
        answer.close()  # unread, because it may have no end
        return super().http_error_302(request, answer, code, said, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302

    def redirect_request(
        self, request: Request, answer: IO, code: int, said: str, headers: HTTPMessage, url: str
    ) -> Request | None:
        _check_source(url, self._mirror)
        return super().redirect_request(request, answer, code, said, headers, url)


@contextmanager
def _only_writer(part: Path) -> Iterator[BinaryIO]:
    """Open a file to continue it, after any other process that does; leave none that is empty."""
    try:
        descriptor = open_locked(part, wait=False)
    except BlockingIOError:
        print(f"{part}: another process downloads it, and is waited for", file=sys.stderr)
        descriptor = open_locked(part, wait=True)
    with open(descriptor, "r+b") as file:
        check_regular(part)
        try:
            yield file
        finally:
            if not os.fstat(descriptor).st_size:
                part.unlink()


def _complete(
    file: BinaryIO,
    part: Path,
    url: str,
    size_bytes: int | None,
    opener: OpenerDirector,
    remedy: str,
) -> None:
    """Download what `file` lacks, and go on after a broken connection as long as that helps."""
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
                # Nothing follows what is held. The hash will tell whether that is everything.
                if held and error.code == 416:
                    return
            reason = " ".join(str(error).split())  # of lines, some of which the server wrote
            raise InputError(f"{url}: cannot be downloaded ({reason}): {remedy}") from error

        with response:
            # A server that ignores ranges sends the whole file.
            start = held if response.status == 206 else 0
            total = None if response.length is None else start + response.length
            # A proxy may answer with a page of its own, which must not spoil what is held.
            if total is not None and not (size_bytes or held) <= total <= most:
                expected = f"{size_bytes:,}" if size_bytes else f"{held:,} to {most:,}"
                raise InputError(
                    f"{url}: is a file of {total:,} bytes there instead of {expected}: {remedy}"
                )
            file.seek(start)
            broken = _copy(response, file, part.stem, total or size_bytes)
        reached = file.tell()
        if broken is None:
            file.truncate()
            return
        if reached <= held:
            raise InputError(
                f"{part}: the download stopped at {reached:,} of {total or most:,} bytes "
                f"({broken}): run the same command again to continue"
            ) from broken
        held = reached


def _copy(response: HTTPResponse, file: BinaryIO, name: str, total: int | None) -> Exception | None:
    """Write what a server sends to a file from where it stands, up to `total` bytes in all.

    Returns what broke the connection before, or None.
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
