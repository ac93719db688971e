"""Checkpoints: every way in which a download or a file of weights can go wrong, and the right one.

No test needs the network: downloads come from a server on this machine, with small content.
"""

import hashlib
import http.server
import itertools
import os
import pickle
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from segment_anything import sam_model_registry

import sam_lungs
from sam_lungs import checkpoints
from sam_lungs.checkpoints import CHECKPOINTS, fetch, load_sam, main, verify
from sam_lungs.errors import InputError

CONTENT = random.Random(0).randbytes(300_000)
HALF = len(CONTENT) // 2
FILE_NAME = "sam_vit_b_01ec64.pth"
WIDTH_KEY = "image_encoder.patch_embed.proj.weight"


# --- The server ---------------------------------------------------------------------------------


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers as its server's `answer` says, and notes the range that was asked for."""

    def do_GET(self) -> None:
        self.server.ranges.append(self.headers["Range"])
        self.server.answer(self)

    def log_message(self, *_args) -> None:
        pass

    def start(self, status: int, length: int | None) -> None:
        self.send_response(status)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    @property
    def rest(self) -> bytes:
        """What is left of the content from the first byte that was asked for."""
        asked = re.fullmatch(r"bytes=(\d+)-", self.headers["Range"] or "bytes=0-")
        return self.server.content[int(asked[1]) :]


def honours_range(request: Handler) -> None:
    if request.headers["Range"] is None:
        ignores_range(request)
    elif request.rest:
        request.start(206, len(request.rest))
        request.wfile.write(request.rest)
    else:
        answers(416)(request)


def ignores_range(request: Handler) -> None:
    request.start(200, len(request.server.content))
    request.wfile.write(request.server.content)


def announces_no_length(request: Handler) -> None:
    request.start(200, None)
    request.wfile.write(request.server.content)


def answers(status: int) -> Callable[[Handler], None]:
    return lambda request: request.send_error(status)


def closes_half_way(request: Handler) -> None:
    request.start(200, len(request.server.content))
    request.wfile.write(request.server.content[:HALF])


def resets_half_way(request: Handler) -> None:
    closes_half_way(request)
    wait_until(lambda: part_size(request.server) > 0)
    request.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    # Closing the descriptor itself, before the server shuts the connection down in good order.
    os.close(request.connection.detach())


def closes_without_a_byte(_request: Handler) -> None:
    pass


def part_size(server: "Server") -> int:
    part = server.folder / f"{FILE_NAME}.part"
    return part.stat().st_size if part.exists() else 0


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert condition()


class Server(http.server.ThreadingHTTPServer):
    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.folder = folder
        self.content = CONTENT
        self.answer = honours_range
        self.ranges: list[str | None] = []

    def handle_error(self, *_args) -> None:
        """A client that hangs up is part of the tests."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def server(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """A server whose content is what the registry says that vit_b is."""
    monkeypatch.setenv("no_proxy", "*")
    with Server(folder) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}/segment_anything/{FILE_NAME}"
        publish(monkeypatch, url, CONTENT)
        yield server
        server.shutdown()
        thread.join()


def publish(monkeypatch: pytest.MonkeyPatch, url: str, content: bytes) -> None:
    monkeypatch.setitem(
        CHECKPOINTS,
        "vit_b",
        replace(
            CHECKPOINTS["vit_b"],
            url=url,
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        ),
    )


def leave_part(folder: Path, content: bytes) -> Path:
    folder.mkdir(exist_ok=True)
    part = folder / f"{FILE_NAME}.part"
    part.write_bytes(content)
    return part


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def error_of(call: Callable, *arguments) -> str:
    """Return the text of the `InputError` that a call raises, which is one line."""
    with pytest.raises(InputError) as caught:
        call(*arguments)
    message = str(caught.value)
    assert message.splitlines() == [message]
    return message


# --- The registry -------------------------------------------------------------------------------


PUBLISHED = [name for name, checkpoint in CHECKPOINTS.items() if checkpoint.is_published]


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_registry_describes_the_architecture_of_its_name(name):
    checkpoint = CHECKPOINTS[name]
    with torch.device("meta"):
        weights = sam_model_registry[name]().state_dict()
    assert checkpoint.name == name
    assert checkpoint.file_name.startswith(f"sam_{name}_")
    assert weights[WIDTH_KEY].shape[0] == checkpoint.encoder_width
    # The published files are float32: four bytes a parameter, and little besides.
    parameter_bytes = 4 * sum(weight.numel() for weight in weights.values())
    assert parameter_bytes < checkpoint.size_bytes < 1.001 * parameter_bytes
    assert re.fullmatch("[0-9a-f]{64}", checkpoint.sha256)


# --- Fetching -----------------------------------------------------------------------------------


@pytest.mark.parametrize("answer", [honours_range, ignores_range, announces_no_length])
def test_fetch_downloads_once(server, folder, capsys, answer):
    server.answer = answer
    path = fetch("vit_b", folder)
    assert path == folder / FILE_NAME
    assert fetch("vit_b", folder) == path
    assert files_in(folder) == {FILE_NAME: CONTENT}
    assert server.ranges == [None]
    streams = capsys.readouterr()
    assert streams.out == ""
    assert f"{FILE_NAME}: 100%" in streams.err
    assert "B/s]" in streams.err


@pytest.mark.parametrize("answer", [honours_range, ignores_range])
def test_any_length_of_what_is_there_gives_the_right_file(
    server, folder, monkeypatch, tmp_path, answer
):
    server.content = CONTENT[:97]
    server.answer = answer
    publish(monkeypatch, CHECKPOINTS["vit_b"].url, server.content)
    for length in range(2 * 97):
        path = folder / FILE_NAME
        path.unlink(missing_ok=True)
        leave_part(folder, CONTENT[:length])
        server.ranges.clear()

        assert fetch("vit_b", folder) == path

        assert files_in(folder) == {FILE_NAME: server.content}
        if length == 97:
            assert server.ranges == []
        else:
            assert server.ranges == [f"bytes={length}-" if 0 < length < 97 else None]


@pytest.mark.parametrize("length", [1, HALF, len(CONTENT) - 1, len(CONTENT)])
def test_a_part_with_other_bytes_is_found_out_and_not_kept(server, folder, length):
    leave_part(folder, bytes(length))
    message = error_of(fetch, "vit_b", folder)
    assert "is not the official vit_b checkpoint" in message
    assert files_in(folder) == {}
    assert fetch("vit_b", folder).read_bytes() == CONTENT


def test_wrong_content_leaves_nothing_behind(server, folder):
    server.content = CONTENT[:-1] + bytes([CONTENT[-1] ^ 1])
    message = error_of(fetch, "vit_b", folder)
    assert hashlib.sha256(server.content).hexdigest() in message
    assert f"put {FILE_NAME} into {folder} by hand" in message
    assert files_in(folder) == {}


def test_content_that_ends_early_for_good_is_not_kept(server, folder):
    # The server has no byte after those of the .part, which it says with status 416.
    server.content = CONTENT[:HALF]
    leave_part(folder, server.content)
    assert "is not the official vit_b checkpoint" in error_of(fetch, "vit_b", folder)
    assert server.ranges == [f"bytes={HALF}-"]
    assert files_in(folder) == {}


def test_content_without_end_of_its_own_that_is_too_long_is_not_kept(server, folder):
    server.content = CONTENT + b"\0"
    server.answer = announces_no_length
    assert "is not the official vit_b checkpoint" in error_of(fetch, "vit_b", folder)
    assert files_in(folder) == {}


@pytest.mark.parametrize("content", [b"<html>Please log in</html>", CONTENT + b"\0", b""])
def test_an_answer_of_another_length_does_not_spoil_what_is_there(server, folder, content):
    leave_part(folder, CONTENT[:HALF])
    server.content = content
    server.answer = ignores_range
    message = error_of(fetch, "vit_b", folder)
    assert f"answered with {len(content):,} bytes instead of 300,000" in message
    assert files_in(folder) == {f"{FILE_NAME}.part": CONTENT[:HALF]}


@pytest.mark.parametrize("answer", [closes_half_way, resets_half_way])
def test_a_broken_connection_is_continued_by_the_next_call(server, folder, capsys, answer):
    server.answer = answer
    message = error_of(fetch, "vit_b", folder)
    (held,) = files_in(folder).values()
    assert 0 < len(held) <= HALF
    assert held == CONTENT[: len(held)]
    assert f"stopped at {len(held):,} of 300,000 bytes" in message
    assert "run the same command again to continue" in message
    assert str(folder / f"{FILE_NAME}.part") in message

    server.answer = honours_range
    capsys.readouterr()
    assert fetch("vit_b", folder).read_bytes() == CONTENT
    assert f"{FILE_NAME}: 100%" in capsys.readouterr().err
    assert server.ranges == [None, f"bytes={len(held)}-"]
    assert files_in(folder) == {FILE_NAME: CONTENT}


def test_a_connection_closed_half_way_keeps_every_byte(server, folder):
    server.answer = closes_half_way
    error_of(fetch, "vit_b", folder)
    assert files_in(folder) == {f"{FILE_NAME}.part": CONTENT[:HALF]}


def test_a_server_that_falls_silent_is_given_up_on(server, folder, monkeypatch):
    given_up = threading.Event()

    def falls_silent(request: Handler) -> None:
        closes_half_way(request)
        given_up.wait(20)

    server.answer = falls_silent
    monkeypatch.setattr(checkpoints, "TIMEOUT_SECONDS", 0.3)
    message = error_of(fetch, "vit_b", folder)
    given_up.set()
    assert "timed out" in message
    assert "run the same command again to continue" in message


@pytest.fixture
def heeds_ctrl_c():
    """A shell starts what runs in its background deaf to Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_an_interrupted_download_is_continued_by_the_next_call(server, folder):
    interrupted = threading.Event()

    def interrupts(request: Handler) -> None:
        closes_half_way(request)
        wait_until(lambda: part_size(request.server) > 0)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
        interrupted.wait(20)

    server.answer = interrupts
    with pytest.raises(KeyboardInterrupt):
        fetch("vit_b", folder)
    interrupted.set()
    (held,) = files_in(folder).values()
    assert 0 < len(held) <= HALF
    server.answer = honours_range
    assert fetch("vit_b", folder).read_bytes() == CONTENT
    assert server.ranges[1:] == [f"bytes={len(held)}-"]


def test_two_fetches_at_once_leave_the_right_file(server, folder):
    """The second starts while the first is half-way, and the first ends while the second is."""
    path = folder / FILE_NAME
    second_is_half_way = threading.Event()

    def takes_turns(request: Handler) -> None:
        rest = request.rest
        half = len(rest) // 2
        request.start(206 if request.headers["Range"] else 200, len(rest))
        request.wfile.write(rest[:half])
        if request.headers["Range"]:
            second_is_half_way.set()
            wait_until(path.exists)
        else:
            second_is_half_way.wait(20)
        request.wfile.write(rest[half:])

    server.answer = takes_turns
    fetched = []
    first = threading.Thread(target=lambda: fetched.append(fetch("vit_b", folder)))
    first.start()
    wait_until(lambda: part_size(server) > 0)
    # The first has taken the .part to its final name before the second is through.
    assert f"{FILE_NAME}.part" in error_of(fetch, "vit_b", folder)
    first.join()
    assert fetched == [path]
    assert len(server.ranges) == 2
    assert files_in(folder) == {FILE_NAME: CONTENT}


@pytest.mark.parametrize("status", [403, 404, 416, 500, 503])
def test_an_http_error_names_url_file_and_folder(server, folder, status):
    server.answer = answers(status)
    message = error_of(fetch, "vit_b", folder)
    assert CHECKPOINTS["vit_b"].url in message
    assert f"{FILE_NAME} into {folder} by hand" in message
    assert str(status) in message


def test_an_http_error_keeps_what_is_there(server, folder):
    leave_part(folder, CONTENT[:HALF])
    server.answer = answers(503)
    error_of(fetch, "vit_b", folder)
    assert files_in(folder) == {f"{FILE_NAME}.part": CONTENT[:HALF]}


def test_a_server_that_closes_without_a_byte_is_told(server, folder):
    server.answer = closes_without_a_byte
    message = error_of(fetch, "vit_b", folder)
    assert message.startswith(f"{CHECKPOINTS['vit_b'].url}: cannot be downloaded")
    assert files_in(folder) == {}


def test_a_refused_connection_is_told(folder, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening, so that it refuses
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/{FILE_NAME}"
        publish(monkeypatch, url, CONTENT)
        message = error_of(fetch, "vit_b", folder)
    assert message.startswith(f"{url}: cannot be downloaded")
    assert f"{FILE_NAME} into {folder} by hand" in message
    assert files_in(folder) == {}


def test_a_folder_that_cannot_be_made_is_told(server, folder):
    folder.write_text("a file in the folder's place")
    assert str(folder) in error_of(fetch, "vit_b", folder)


def test_a_part_that_cannot_be_written_is_told(server, folder):
    (folder / f"{FILE_NAME}.part").mkdir(parents=True)
    assert f"{FILE_NAME}.part" in error_of(fetch, "vit_b", folder)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_disk_is_told(server, folder):
    folder.mkdir()
    (folder / f"{FILE_NAME}.part").symlink_to("/dev/full")
    assert "No space left on device" in error_of(fetch, "vit_b", folder)


@pytest.mark.parametrize("size", [0, HALF, len(CONTENT) + 1])
def test_a_file_of_the_wrong_size_is_told_and_left_alone(server, folder, size):
    content = bytes(size)
    folder.mkdir()
    (folder / FILE_NAME).write_bytes(content)
    message = error_of(fetch, "vit_b", folder)
    assert f"has {size:,} bytes" in message
    assert "300,000" in message
    assert "delete it to download it again" in message
    assert files_in(folder) == {FILE_NAME: content}
    assert server.ranges == []


def test_verify_knows_official_bytes(tmp_path):
    path = tmp_path / "any_name.pth"
    for name, checkpoint in CHECKPOINTS.items():
        verify(name, path, checkpoint.sha256)
        for other in CHECKPOINTS.values():
            if other != checkpoint:
                message = error_of(verify, name, path, other.sha256)
                assert message.startswith(f"{path}: is not the official {name} checkpoint")
                assert other.sha256 in message
                assert "--checkpoint" in message


# --- The command --------------------------------------------------------------------------------


@pytest.fixture
def run_command(tmp_path: Path):
    """Run `python -m sam_lungs.checkpoints` of a copy of the package, without a network.

    A copy, because the command's folder is beside the package, where real checkpoints may lie.
    """
    shutil.copytree(Path(sam_lungs.__file__).parent, tmp_path / "sam_lungs")

    def run(*arguments: str) -> subprocess.CompletedProcess:
        return subprocess.run(
            [sys.executable, "-m", "sam_lungs.checkpoints", *arguments],
            cwd=tmp_path,
            env={**os.environ, "https_proxy": "http://127.0.0.1:9", "no_proxy": ""},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


@pytest.mark.parametrize(
    ("arguments", "first"),
    [([], "vit_l"), (["vit_b"], "vit_b"), (["vit_l"], "vit_l"), (["vit_h", "vit_b"], "vit_h")],
)
def test_the_command_without_network_fails_in_one_line(run_command, tmp_path, arguments, first):
    ended = run_command(*arguments)
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {CHECKPOINTS[first].url}: cannot be downloaded")
    assert f"put {CHECKPOINTS[first].file_name} into {tmp_path / 'checkpoints'} by hand" in line


def test_the_command_refuses_an_unknown_name(run_command, tmp_path):
    ended = run_command("vit_b", "vit_x")
    assert ended.returncode == 2
    assert "invalid choice: 'vit_x'" in ended.stderr
    assert not (tmp_path / "checkpoints").exists()


@pytest.fixture
def command_here(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command in this process, with the test's folder in place of the repository's."""
    monkeypatch.setattr(fetch, "__defaults__", (folder,))

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["checkpoints", *arguments])
        main()

    return run


def test_the_command_prints_a_line_for_each_checkpoint(
    server, folder, monkeypatch, capsys, command_here
):
    url = CHECKPOINTS["vit_b"].url.replace("vit_b", "vit_l")
    vit_l = replace(CHECKPOINTS["vit_b"], name="vit_l", url=url)
    monkeypatch.setitem(CHECKPOINTS, "vit_l", vit_l)

    command_here()
    path_l, path_b = folder / vit_l.file_name, folder / FILE_NAME
    assert capsys.readouterr().out == f"vit_l: {path_l}\n"
    command_here("vit_b", "vit_l")
    assert capsys.readouterr().out == f"vit_b: {path_b}\nvit_l: {path_l}\n"
    assert len(server.ranges) == 2
    assert files_in(folder) == {path_l.name: CONTENT, path_b.name: CONTENT}


def test_the_command_verifies_a_file_that_is_there(server, folder, command_here):
    folder.mkdir()
    (folder / FILE_NAME).write_bytes(bytes(len(CONTENT)))
    message = error_of(command_here, "vit_b")
    assert f"{folder / FILE_NAME}: is not the official vit_b checkpoint" in message
    assert files_in(folder) == {FILE_NAME: bytes(len(CONTENT))}


def test_fetching_does_not_import_torch():
    code = "import sys, sam_lungs.checkpoints; sys.exit('torch' in sys.modules)"
    repository = Path(sam_lungs.__file__).parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=repository).returncode == 0


# --- Loading ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vit_b_weights() -> dict[str, torch.Tensor]:
    """Weights of the names and shapes of vit_b's, each a single number that a file stores once."""
    with torch.device("meta"):
        shapes = {
            key: weight.shape for key, weight in sam_model_registry["vit_b"]().state_dict().items()
        }
    return {
        key: torch.tensor(float(number)).expand(shape)
        for number, (key, shape) in enumerate(shapes.items())
    }


def saved(folder: Path, content: object) -> Path:
    path = folder / "weights.pth"
    torch.save(content, path)
    return path


def test_a_full_size_checkpoint_round_trip(tmp_path):
    torch.manual_seed(0)
    weights = sam_model_registry["vit_b"]().state_dict()
    path = saved(tmp_path, weights)

    sam = load_sam("vit_b", path)
    path.unlink()

    loaded = sam.state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)
    assert not any(module.training for module in sam.modules())
    assert not any(parameter.requires_grad for parameter in sam.parameters())
    assert {parameter.device.type for parameter in sam.parameters()} == {"cpu"}


def test_half_precision_weights_become_float32(tmp_path, vit_b_weights):
    halves = {
        key: weight.flatten()[0].half().expand(weight.shape)
        for key, weight in vit_b_weights.items()
    }
    sam = load_sam("vit_b", saved(tmp_path, halves))
    assert {parameter.dtype for parameter in sam.parameters()} == {torch.float32}
    for key, weight in sam.state_dict().items():
        assert torch.equal(weight, vit_b_weights[key])


@pytest.mark.parametrize(("held", "named"), [*itertools.permutations(CHECKPOINTS, 2)])
def test_another_architecture_is_named(tmp_path, held, named):
    width = CHECKPOINTS[held].encoder_width
    path = saved(tmp_path, {WIDTH_KEY: torch.zeros(1).expand(width, 3, 16, 16)})
    assert error_of(load_sam, named, path) == (
        f"{path}: holds {held} weights, not {named}: pass --model {held}"
    )


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"model": {WIDTH_KEY: torch.zeros(768, 3, 16, 16)}},
        {"weight": torch.zeros(3)},
        {WIDTH_KEY: torch.zeros(700, 3, 16, 16)},
        {WIDTH_KEY: torch.tensor(768.0)},
        {WIDTH_KEY: "not a tensor"},
        {0: torch.zeros(3)},
        [torch.zeros(3)],
        torch.zeros(3),
        "text",
        None,
    ],
    ids=lambda content: repr(content)[:40],
)
def test_other_content_is_no_sam(tmp_path, content):
    path = saved(tmp_path, content)
    assert error_of(load_sam, "vit_b", path).startswith(f"{path}: holds no SAM weights")


MISSING = object()


@pytest.mark.parametrize(
    "changes",
    [
        {"mask_decoder.iou_token.weight": MISSING},
        {"mask_decoder.iou_token.weight": torch.zeros(2, 256)},
        {"mask_decoder.iou_token.weight": "not a tensor"},
        {"mask_decoder.hf_token.weight": torch.zeros(1, 256)},
        {7: torch.zeros(1), "mask_decoder.iou_token.weight": MISSING},
    ],
    ids=["missing", "another shape", "not a tensor", "unexpected", "a name that is none"],
)
def test_weights_of_other_parameters_are_refused(tmp_path, vit_b_weights, changes):
    weights = {
        key: value for key, value in {**vit_b_weights, **changes}.items() if value is not MISSING
    }
    message = error_of(load_sam, "vit_b", saved(tmp_path, weights))
    assert f"{len(changes)} parameters, the first {min(map(str, changes))})" in message


class Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, made: Path) -> None:
        self.made = made

    def __reduce__(self):
        return os.mkdir, (str(self.made),)


@pytest.mark.parametrize(
    "save",
    [
        torch.save,
        lambda content, path: torch.save(content, path, _use_new_zipfile_serialization=False),
        lambda content, path: path.write_bytes(pickle.dumps(content, protocol=2)),
    ],
    ids=["archive", "legacy", "pickle"],
)
@pytest.mark.parametrize("wrap", [lambda trap: trap, lambda trap: {WIDTH_KEY: trap}])
def test_no_code_in_a_checkpoint_is_run(tmp_path, save, wrap):
    made, path = tmp_path / "made", tmp_path / "weights.pth"
    save(wrap(Trap(made)), path)
    assert error_of(load_sam, "vit_b", path).startswith(f"{path}: is not a PyTorch file")
    assert not made.exists()


def test_the_trap_works(tmp_path):
    path = saved(tmp_path, Trap(tmp_path / "made"))
    torch.load(path, weights_only=False)
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "legacy"])
def test_a_truncated_checkpoint_is_told_at_any_length(tmp_path, archive):
    path = tmp_path / "weights.pth"
    weights = {WIDTH_KEY: torch.zeros(768, 3, 1, 1), "other": torch.zeros(2)}
    torch.save(weights, path, _use_new_zipfile_serialization=archive)
    content = path.read_bytes()
    lengths = {*range(0, len(content), 61), *range(40), *range(len(content) - 40, len(content))}
    for length in sorted(lengths):
        path.write_bytes(content[:length])
        assert "is not a PyTorch file" in error_of(load_sam, "vit_b", path), length
    path.write_bytes(content)
    assert "does not fit vit_b" in error_of(load_sam, "vit_b", path)


@given(content=st.binary(max_size=200))
def test_any_bytes_give_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any_bytes.pth"
    path.write_bytes(content)
    assert error_of(load_sam, "vit_b", path).startswith(f"{path}: ")


def test_a_missing_checkpoint_is_told(tmp_path):
    path = tmp_path / "missing.pth"
    assert error_of(load_sam, "vit_b", path) == (
        f"{path}: cannot be read (No such file or directory)"
    )


def test_a_folder_is_no_checkpoint(tmp_path):
    assert error_of(load_sam, "vit_b", tmp_path).startswith(f"{tmp_path}: cannot be read")
