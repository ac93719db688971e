"""A local file server for the tests of downloads."""

import http.server
import random
import re
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from sam_lungs.utils.errors import InputError

CONTENT = random.Random(0).randbytes(300_000)
HALF = len(CONTENT) // 2
NAME = "file.bin"
PART = f"{NAME}.part"
OFFICIAL = f"https://zenodo.org/record/1/files/{NAME}"


class Handler(http.server.BaseHTTPRequestHandler):
    """Calls its server's `answer`, and records the requested range."""

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers["Range"])
        self.server.answer(self)

    def log_message(self, *_args) -> None:
        pass

    def start(self, status: int, length: int | None, **headers: str) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    @property
    def content(self) -> bytes:
        return self.server.files[self.path.rpartition("/")[2]]

    @property
    def rest(self) -> bytes:
        """The content from the first requested byte on."""
        requested = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "bytes=0-")
        return self.content[int(requested[1]) :]


def honours_range(request: Handler) -> None:
    if request.headers["Range"] is None:
        ignores_range(request)
    elif request.rest:
        request.start(206, len(request.rest))
        request.wfile.write(request.rest)
    else:
        answers(416)(request)


def ignores_range(request: Handler) -> None:
    request.start(200, len(request.content))
    request.wfile.write(request.content)


def announces_no_length(request: Handler) -> None:
    request.start(200, None)
    request.wfile.write(request.content)


def never_ends(request: Handler) -> None:
    request.start(200, None)
    request.wfile.write(request.content)
    while True:
        request.wfile.write(bytes(1 << 16))


def answers(status: int) -> Callable[[Handler], None]:
    return lambda request: request.send_error(status)


def closes_half_way(request: Handler) -> None:
    request.start(200, len(request.content))
    request.wfile.write(request.content[:HALF])


def closes_without_a_byte(_request: Handler) -> None:
    pass


def in_pieces(request: Handler) -> None:
    """Send the requested bytes in about 30 pieces, 10 ms apart."""
    rest = request.rest
    request.start(206 if request.headers["Range"] else 200, len(rest))
    for start in range(0, len(rest), 10_000):
        request.wfile.write(rest[start : start + 10_000])
        time.sleep(0.01)


def redirects_to(url: str, status: int = 302) -> Callable[[Handler], None]:
    """Redirect to `url`, with an endless body; requests for /elsewhere/ are answered."""

    def answer(request: Handler) -> None:
        if "/elsewhere/" in request.path:
            return honours_range(request)
        request.start(status, None, Location=url)
        while True:
            request.wfile.write(bytes(1 << 16))

    return answer


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


class Server(http.server.ThreadingHTTPServer):
    """Serves `files`, a dictionary of contents by file name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files = {NAME: CONTENT}
        self.answer = honours_range
        self.ranges: list[str | None] = []
        self.url = f"http://127.0.0.1:{self.server_port}/files"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.01,))

    def __enter__(self) -> "Server":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def handle_error(self, *_args) -> None:
        """Ignore clients that close the connection; tests do so on purpose."""


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def error_of(call: Callable, *arguments, **options) -> str:
    """Return the message of the `InputError` that a call raises; assert that it is one line."""
    with pytest.raises(InputError) as caught:
        call(*arguments, **options)
    message = str(caught.value)
    assert message.splitlines() == [message]
    return message
