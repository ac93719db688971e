"""Downloads from a local server: interruptions, wrong responses, redirects."""

import hashlib
import io
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path
from urllib.request import Request

import pytest
from conftest import ROOT
from server import (
    CONTENT,
    HALF,
    NAME,
    OFFICIAL,
    PART,
    Handler,
    Server,
    announces_no_length,
    answers,
    closes_half_way,
    closes_without_a_byte,
    error_of,
    files_in,
    honours_range,
    ignores_range,
    in_pieces,
    never_ends,
    redirects_to,
    wait_until,
)

from sam_lungs.utils import download as downloads
from sam_lungs.utils import files
from sam_lungs.utils.download import download


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as server:
        yield server


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a folder"


download_it = partial(download, script="scripts/get.sh")


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture(params=[True, False], ids=["size known", "size unknown"])
def get(request, server, folder):
    """Download the file, by default from the server as a mirror."""

    def get(content: bytes = CONTENT, mirror: str | None = server.url, url: str = OFFICIAL) -> None:
        size = len(content) if request.param else None
        download_it(url, folder / NAME, sha256_of(content), size, mirror)

    get.size_known = request.param
    return get


def leave_part(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    part = folder / PART
    part.write_bytes(content)
    return part


def part_size(folder: Path) -> int:
    part = folder / PART
    return part.stat().st_size if part.exists() else 0


# --- Complete downloads --------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [honours_range, ignores_range, announces_no_length])
def test_a_file_is_downloaded_once(server, folder, get, answer):
    server.answer = answer
    get()
    get()
    assert files_in(folder) == {NAME: CONTENT}
    assert server.ranges == [None]


def test_progress_is_shown_in_megabytes(server, folder, capsys):
    content = bytes(3_500_000)
    server.files[NAME] = content
    leave_part(folder, content[:1_200_000])
    download_it(OFFICIAL, folder / NAME, sha256_of(content), len(content), server.url)
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err == f"{NAME}: 3 of 3 megabytes, 0 s left\n"


@pytest.mark.parametrize("answer", [honours_range, ignores_range, announces_no_length])
def test_a_part_of_any_length_is_completed(server, folder, get, answer):
    content = CONTENT[:48]
    server.files[NAME] = content
    server.answer = answer
    for length in range(2 * 48):
        (folder / NAME).unlink(missing_ok=True)
        leave_part(folder, CONTENT[:length])
        server.ranges.clear()
        too_long = length > 48 and not get.size_known
        if too_long:
            # Only the hash or the Content-Length shows that the part is wrong.
            if answer is ignores_range:
                assert f"offers 48 bytes instead of {length}" in error_of(get, content)
                continue
            if answer is honours_range:
                assert "has been deleted" in error_of(get, content)

        get(content)

        assert files_in(folder) == {NAME: content}, length
        if get.size_known:
            asked = [f"bytes={length}-" if 0 < length < 48 else None]
            assert server.ranges == ([] if length == 48 else asked)


@pytest.mark.parametrize("length", [1, HALF, len(CONTENT) - 1, len(CONTENT)])
def test_a_part_with_other_bytes_is_deleted(folder, get, length):
    leave_part(folder, bytes(length))
    assert "is not the published one" in error_of(get)
    assert files_in(folder) == {}
    get()
    assert files_in(folder) == {NAME: CONTENT}


def test_wrong_content_is_deleted(server, folder, get):
    wrong = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    server.files[NAME] = wrong
    message = error_of(get)
    assert sha256_of(wrong) in message
    assert sha256_of(CONTENT) in message
    assert f"put {NAME} into {folder} by hand" in message
    assert files_in(folder) == {}


def test_content_that_is_too_short_is_deleted(server, folder, get):
    # The server answers with status 416: no bytes follow those of the .part.
    server.files[NAME] = CONTENT[:HALF]
    leave_part(folder, CONTENT[:HALF])
    assert "is not the published one" in error_of(get)
    assert server.ranges == [f"bytes={HALF}-"]
    assert files_in(folder) == {}


@pytest.mark.parametrize(
    "content", [b"<html>Please log in</html>", CONTENT + b"\0", b""], ids=["page", "longer", "none"]
)
def test_an_answer_of_another_length_does_not_change_the_part(server, folder, content):
    leave_part(folder, CONTENT[:HALF])
    server.files[NAME] = content
    server.answer = ignores_range
    target = folder / NAME
    message = error_of(download_it, OFFICIAL, target, sha256_of(CONTENT), len(CONTENT), server.url)
    assert f"the server offers {len(content):,} bytes instead of 300,000" in message
    assert files_in(folder) == {PART: CONTENT[:HALF]}


@pytest.mark.parametrize("content", [b"<html>Please log in</html>", b""], ids=["page", "none"])
def test_a_shorter_answer_does_not_change_the_part(server, folder, get, content):
    leave_part(folder, CONTENT[:HALF])
    server.files[NAME] = content
    server.answer = ignores_range
    assert f"the server offers {len(content):,} bytes instead" in error_of(get)
    assert files_in(folder) == {PART: CONTENT[:HALF]}


def test_an_endless_answer_is_cut_at_the_limit(server, folder, monkeypatch, get):
    """If the size is known, bytes after it are not read."""
    monkeypatch.setattr(downloads, "MAX_BYTES", 2 * len(CONTENT))
    written = []

    def watch(path: Path) -> str:
        written.append(path.stat().st_size)
        return files.sha256_of(path)

    monkeypatch.setattr(downloads, "sha256_of", watch)
    server.answer = never_ends
    if get.size_known:
        get()
        assert files_in(folder) == {NAME: CONTENT}
    else:
        assert "is not the published one" in error_of(get)
        assert files_in(folder) == {}
    assert max(written) <= 2 * len(CONTENT)


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_file_with_a_huge_announced_size_is_refused(server, folder, size):
    server.answer = lambda request: request.start(200, 1 << 40)
    message = error_of(download_it, OFFICIAL, folder / NAME, sha256_of(CONTENT), size, server.url)
    assert "the server offers 1,099,511,627,776 bytes instead of" in message
    assert files_in(folder) == {}


# --- Interruptions -------------------------------------------------------------------------------


def test_a_broken_connection_is_resumed(server, folder, get):
    def breaks_often(request: Handler) -> None:
        rest = request.rest
        request.start(206 if request.headers["Range"] else 200, len(rest))
        request.wfile.write(rest[:100_000])

    server.answer = breaks_often
    get()
    assert server.ranges == [None, "bytes=100000-", "bytes=200000-"]
    assert files_in(folder) == {NAME: CONTENT}


def test_a_connection_that_stays_broken_is_resumed_by_the_next_call(server, folder, get):
    server.answer = closes_half_way  # and ignores the requested range
    message = error_of(get)
    assert f"{folder / PART}: the download stopped at {HALF:,} of 300,000 bytes" in message
    assert "run the same command again to resume" in message
    assert files_in(folder) == {PART: CONTENT[:HALF]}
    assert server.ranges == [None, f"bytes={HALF}-"]

    server.answer = honours_range
    get()
    assert server.ranges[2:] == [f"bytes={HALF}-"]
    assert files_in(folder) == {NAME: CONTENT}


def test_a_reset_connection_keeps_the_part(server, folder, get):
    def resets_half_way(request: Handler) -> None:
        if request.headers["Range"]:
            return answers(503)(request)
        closes_half_way(request)
        wait_until(lambda: part_size(folder) > 0)
        request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # Closing the descriptor itself, before the server shuts the connection down.
        os.close(request.connection.detach())

    server.answer = resets_half_way
    assert "503" in error_of(get)
    (held,) = files_in(folder).values()
    assert 0 < len(held) <= HALF
    assert held == CONTENT[: len(held)]
    server.answer = honours_range
    get()
    assert server.ranges[-1] == f"bytes={len(held)}-"
    assert files_in(folder) == {NAME: CONTENT}


def test_a_silent_server_times_out(server, folder, monkeypatch, get):
    given_up = threading.Event()

    def falls_silent(request: Handler) -> None:
        closes_half_way(request)
        given_up.wait(20)

    server.answer = falls_silent
    monkeypatch.setattr(downloads, "TIMEOUT_SECONDS", 0.3)
    message = error_of(get)
    given_up.set()
    assert "timed out" in message
    assert "run the same command again to resume" in message
    assert files_in(folder) == {PART: CONTENT[:HALF]}


@pytest.fixture
def command(server, folder):
    """Start a process that downloads the file as a script does; it runs the code `before` first."""

    def start(before: str = "") -> subprocess.Popen:
        arguments = (OFFICIAL, sha256_of(CONTENT), len(CONTENT), server.url)
        code = f"""
import os, signal
from pathlib import Path
from sam_lungs.utils import download as downloads
from sam_lungs.utils.cli import run_script
{before}
url, *rest = {arguments!r}
path = Path({str(folder / NAME)!r})
run_script(lambda: downloads.download(url, path, *rest, script=""))
"""
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )

    return start


def ended(process: subprocess.Popen) -> tuple[int, str]:
    """Wait for a process; return its exit status and its standard error."""
    errors = process.communicate()[1]
    return process.returncode, errors


def test_a_killed_download_is_resumed_by_the_same_command(server, folder, command):
    server.answer = in_pieces
    kills = 0
    for target in range(1, len(CONTENT), 25_000):
        process = command()
        wait_until(lambda process=process, target=target: part_size(folder) >= target)
        process.kill()
        kills += ended(process)[0] == -signal.SIGKILL
        held = (folder / PART).read_bytes()
        assert held == CONTENT[: len(held)]
    assert kills == 12
    assert ended(command()) == (0, "")
    assert server.ranges[0] is None
    assert all(int(asked[6:-1]) > 0 for asked in server.ranges[1:])
    assert files_in(folder) == {NAME: CONTENT}


# The first call of `sync` is for the part, the second for its folder.
@pytest.mark.parametrize(
    ("step", "call"), [("sha256_of", 1), ("sync", 1), ("os.replace", 1), ("sync", 2)]
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_download_killed_in_its_last_steps_is_finished_by_the_same_command(
    server, folder, command, step, call, when
):
    killed = command(f"""
step, calls = downloads.{step}, []

def dies(*arguments):
    calls.append(arguments)
    if {when == "after"} or len(calls) < {call}:
        result = step(*arguments)
    if len(calls) == {call}:
        os.kill(os.getpid(), signal.SIGKILL)
    return result

downloads.{step} = dies
""")
    assert ended(killed)[0] == -signal.SIGKILL
    assert ended(command()) == (0, "")
    assert files_in(folder) == {NAME: CONTENT}
    assert server.ranges == [None]


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_download_and_keeps_the_part(server, folder, command, number, status):
    server.answer = in_pieces
    process = command()
    wait_until(lambda: part_size(folder) > 0)
    process.send_signal(number)
    ended_with, errors = ended(process)
    assert ended_with == status
    assert "to resume, run the same command again" in errors
    held = (folder / PART).read_bytes()
    assert held == CONTENT[: len(held)]
    assert ended(command()) == (0, "")
    assert server.ranges[1:] == [f"bytes={len(held)}-"]


# --- Concurrent downloads ------------------------------------------------------------------------


@pytest.fixture
def two_at_once(server, folder, command):
    """Two processes, the first with half the file, the second waiting; an event to continue."""
    go_on = threading.Event()

    def waits_half_way(request: Handler) -> None:
        closes_half_way(request)
        go_on.wait(20)
        request.wfile.write(request.content[HALF:])

    server.answer = waits_half_way
    first = command()
    wait_until(lambda: part_size(folder) == HALF)
    second = command()
    waited = f"{folder / PART}: waiting for another process that downloads it\n"
    assert second.stderr.readline() == waited
    yield first, second, go_on
    go_on.set()


def test_a_second_process_waits_and_downloads_nothing(server, folder, two_at_once):
    first, second, go_on = two_at_once
    go_on.set()
    assert ended(first) == ended(second) == (0, "")
    assert server.ranges == [None]
    assert files_in(folder) == {NAME: CONTENT}


def test_a_second_process_resumes_when_the_first_is_killed(server, folder, two_at_once):
    first, second, _ = two_at_once
    server.answer = honours_range
    first.kill()
    assert ended(first)[0] == -signal.SIGKILL
    assert ended(second) == (0, "")
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert files_in(folder) == {NAME: CONTENT}


def test_five_processes_download_the_file_once(server, folder, command):
    server.answer = in_pieces
    for ending in [ended(process) for process in [command() for _ in range(5)]]:
        assert ending[0] == 0
    assert server.ranges == [None]
    assert files_in(folder) == {NAME: CONTENT}


# --- Allowed servers -----------------------------------------------------------------------------


REFUSED = [
    f"http://zenodo.org/{NAME}",
    f"http://dl.fbaipublicfiles.com/{NAME}",
    f"https://zenodo.org.example.com/{NAME}",
    f"https://notzenodo.org/{NAME}",
    f"https://fbaipublicfiles.com/{NAME}",
    f"https://example.com/zenodo.org/{NAME}",
    f"https://zenodo.org@example.com/{NAME}",
    f"https://zenodo.org:443@example.com/{NAME}",
    f"https://example.com@zenodo.org/{NAME}",
    f"https://example.com\\@zenodo.org/{NAME}",
    f"ftp://zenodo.org/{NAME}",
    f"file:///etc/{NAME}",
    f"//zenodo.org/{NAME}",
    f"zenodo.org/{NAME}",
    f"https:///{NAME}",
    f"https://[zenodo.org/{NAME}",
    "data:,file",
    "",
]


@pytest.mark.parametrize("url", REFUSED)
def test_other_servers_are_refused(server, folder, get, url):
    message = error_of(get, mirror=None, url=url)
    assert message.startswith(f"{url}: not downloaded")
    assert "--mirror" in message
    assert not folder.exists()
    assert server.ranges == []


@pytest.mark.parametrize("url", REFUSED)
@pytest.mark.parametrize("host", ["dl.fbaipublicfiles.com", "zenodo.org", "openi.nlm.nih.gov"])
def test_redirects_from_allowed_servers_to_others_are_refused(url, host):
    asked = Request(f"https://{host}/{NAME}")
    redirects = downloads._Redirects(None)
    message = error_of(redirects.redirect_request, asked, io.BytesIO(), 302, "", {}, url)
    assert message.startswith(f"{url}: not downloaded")


@pytest.mark.parametrize("host", ["dl.fbaipublicfiles.com", "zenodo.org", "files.ZENODO.org:443"])
def test_redirects_among_allowed_servers_are_followed(host):
    asked, url = Request(OFFICIAL, headers={"Range": "bytes=7-"}), f"https://{host}/{NAME}"
    redirects = downloads._Redirects(None)
    followed = redirects.redirect_request(asked, io.BytesIO(), 302, "", {}, url)
    assert followed.full_url == url
    assert followed.headers == {"Range": "bytes=7-"}


@pytest.mark.parametrize("status", [301, 302, 303, 307])
def test_a_mirror_may_redirect_to_itself(server, folder, get, status):
    leave_part(folder, CONTENT[:HALF])
    server.answer = redirects_to(f"/elsewhere/{NAME}", status)
    get()
    assert server.ranges == [f"bytes={HALF}-"] * 2
    assert files_in(folder) == {NAME: CONTENT}


@pytest.mark.parametrize(
    "url", [f"http://localhost:0/{NAME}", f"http://zenodo.org/{NAME}", f"ftp://127.0.0.1/{NAME}"]
)
def test_a_mirror_may_not_redirect_to_other_servers(server, folder, get, url):
    server.answer = redirects_to(url)
    assert error_of(get).startswith(f"{url}: not downloaded")
    assert server.ranges == [None]
    assert files_in(folder) == {}


@pytest.mark.parametrize("url", ["file:///etc/passwd", "http://[", "http://127.0.0.1:x/"])
def test_a_redirect_to_an_invalid_url_is_an_error(server, folder, get, url):
    server.answer = redirects_to(url)
    assert "downloaded" in error_of(get)
    assert files_in(folder) == {}


def test_a_redirect_loop_is_an_error(server, folder, get):
    server.answer = lambda request: request.start(302, 0, Location=request.path)
    assert "infinite loop" in error_of(get)
    assert files_in(folder) == {}


@pytest.mark.parametrize(
    "mirror", ["", "files", "/tmp", "ftp://127.0.0.1", "file:///tmp", "http://"]
)
def test_an_invalid_mirror_is_an_error(folder, get, mirror):
    message = error_of(get, mirror=mirror)
    assert "give the URL of its folder, http or https, with --mirror" in message
    assert not folder.exists()


@pytest.mark.parametrize("end", ["", "/"])
def test_the_mirror_is_the_url_of_a_folder(server, folder, get, end):
    paths = []
    server.answer = lambda request: (paths.append(request.path), honours_range(request))
    get(mirror=server.url + end)
    assert paths == [f"/files/{NAME}"]


# --- Errors --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [403, 404, 416, 500, 503])
def test_an_http_error_names_url_file_and_folder(server, folder, get, status):
    server.answer = answers(status)
    message = error_of(get)
    assert message.startswith(f"{server.url}/{NAME}: cannot be downloaded")
    assert f"{NAME} into {folder} by hand" in message
    assert str(status) in message
    assert files_in(folder) == {}


def test_an_http_error_keeps_the_part(server, folder, get):
    leave_part(folder, CONTENT[:HALF])
    server.answer = answers(503)
    error_of(get)
    assert files_in(folder) == {PART: CONTENT[:HALF]}


def test_a_connection_closed_without_a_byte_is_an_error(server, folder, get):
    server.answer = closes_without_a_byte
    assert error_of(get).startswith(f"{server.url}/{NAME}: cannot be downloaded")
    assert files_in(folder) == {}


def test_a_refused_connection_is_an_error(folder, get):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening, so that it refuses
        mirror = f"http://127.0.0.1:{unused.getsockname()[1]}"
        message = error_of(get, mirror=mirror)
    assert message.startswith(f"{mirror}/{NAME}: cannot be downloaded")
    assert f"{NAME} into {folder} by hand" in message
    assert files_in(folder) == {}


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("no name", "Name or service not known"),
        ("proxy refuses", "Tunnel connection failed: 403 Forbidden"),
        ("no proxy", "Connection refused"),
        ("silent", "timed out"),
    ],
)
def test_without_a_network_the_error_says_where_the_file_is_and_where_it_belongs(
    server, folder, get, monkeypatch, kind, reason
):
    mirror, waiting = None, threading.Event()
    if kind == "no name":

        def fail(*_args):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", fail)
    elif kind == "silent":
        monkeypatch.setattr(downloads, "TIMEOUT_SECONDS", 0.1)
        mirror, server.answer = server.url, lambda _request: waiting.wait(10)
    else:
        port = server.server_port if kind == "proxy refuses" else 9
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
        monkeypatch.delenv("no_proxy")
        monkeypatch.setattr(Handler, "do_CONNECT", answers(403), raising=False)
    message = error_of(get, mirror=mirror)
    waiting.set()
    url = f"{server.url}/{NAME}" if mirror else OFFICIAL
    assert message.startswith(f"{url}: cannot be downloaded (")
    assert message.partition("(")[2].partition(")")[0].endswith(reason)
    assert "scripts/get.sh --mirror URL" in message
    assert f"put {NAME} into {folder} by hand" in message
    assert files_in(folder) == {}


def test_a_folder_that_cannot_be_made_is_an_error(folder, get):
    folder.write_text("a file in the folder's place")
    assert str(folder) in error_of(get)


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo, lambda path: os.symlink("/dev/full", path)])
def test_a_part_that_is_no_regular_file_is_an_error(folder, get, make):
    folder.mkdir()
    make(folder / PART)
    assert error_of(get).startswith(f"{folder / PART}: ")


def test_a_limit_on_file_sizes_is_an_error_that_keeps_the_part(folder, command):
    process = command("import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (100000, -1))")
    status, errors = ended(process)
    (line,) = errors.splitlines()
    assert status == 1
    assert line.startswith(f"error: {folder / PART}: cannot be written (File too large)")
    assert files_in(folder) == {PART: CONTENT[:100_000]}
    assert ended(command()) == (0, "")
    assert files_in(folder) == {NAME: CONTENT}


@pytest.fixture
def small_disk(folder):
    """A disk of 64 KB, mounted at the folder; returns a function that remounts it."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("needs to mount a disk")
    yield lambda how: subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)
    subprocess.run(["umount", folder], check=True)


def test_a_full_or_read_only_disk_is_an_error_that_keeps_the_part(server, folder, small_disk, get):
    message = error_of(get)
    assert message.startswith(f"{folder / PART}: cannot be written (No space left on device)")
    assert "run the same command again to resume" in message
    held = files_in(folder)
    assert held == {PART: CONTENT[: 64 << 10]}
    assert "No space left" in error_of(get)

    small_disk("size=1m,ro")
    assert "cannot be written (Read-only file system)" in error_of(get)
    assert files_in(folder) == held

    small_disk("size=1m,rw")
    get()
    assert server.ranges[-1] == f"bytes={64 << 10}-"
    assert files_in(folder) == {NAME: CONTENT}
