"""Checkpoints: every way in which a download or a file of weights can go wrong, and the right one.

No test needs the network: downloads come from a server on this machine, with small content.
"""

import hashlib
import io
import itertools
import os
import pickle
import re
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import ROOT
from hypothesis import given
from hypothesis import strategies as st
from segment_anything import sam_model_registry
from server import CONTENT, HALF, Server, answers, error_of, files_in

from sam_lungs.segmenters.checkpoints import (
    CHECKPOINTS,
    CHECKPOINTS_FOLDER,
    fetch,
    load_sam,
    main,
    verify,
)
from sam_lungs.utils.errors import InputError

FILE_NAME = "sam_vit_b_01ec64.pth"
WIDTH_KEY = "image_encoder.patch_embed.proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    """A server whose content is what the registry says that vit_b is."""
    monkeypatch.setenv("no_proxy", "*")
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    vit_b = replace(CHECKPOINTS["vit_b"], size_bytes=len(CONTENT), sha256=sha256)
    monkeypatch.setitem(CHECKPOINTS, "vit_b", vit_b)
    with Server() as server:
        server.files = {FILE_NAME: CONTENT}
        yield server


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


def test_fetch_downloads_once_and_continues(server, folder):
    folder.mkdir()
    (folder / f"{FILE_NAME}.part").write_bytes(CONTENT[:HALF])
    path = fetch("vit_b", folder, server.url)
    assert path == folder / FILE_NAME
    assert fetch("vit_b", folder, server.url) == path
    assert fetch("vit_b", folder) == path
    assert files_in(folder) == {FILE_NAME: CONTENT}
    assert server.ranges == [f"bytes={HALF}-"]


def test_wrong_content_is_not_kept(server, folder):
    server.files[FILE_NAME] = bytes(len(CONTENT))
    assert "is not what was published" in error_of(fetch, "vit_b", folder, server.url)
    assert files_in(folder) == {}


def test_a_failed_download_names_url_file_and_folder(server, folder):
    server.answer = answers(404)
    message = error_of(fetch, "vit_b", folder, server.url)
    assert message.startswith(f"{server.url}/{FILE_NAME}: cannot be downloaded")
    assert f"{FILE_NAME} into {folder} by hand" in message


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_told(server, folder, make):
    folder.mkdir()
    make(folder / FILE_NAME)
    assert "not a regular file" in error_of(fetch, "vit_b", folder, server.url)


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
def run_command(run_copied):
    return partial(run_copied, "sam_lungs.segmenters.checkpoints")


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


def test_the_command_takes_the_files_from_a_mirror(server, run_command):
    ended = run_command("--mirror", server.url, "vit_b")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"{server.url}/{FILE_NAME}: is a file of 300,000 bytes there instead of 375,0" in line
    assert server.ranges == [None]


def test_the_command_refuses_an_unknown_name(run_command, tmp_path):
    ended = run_command("vit_b", "vit_x")
    assert ended.returncode == 2
    assert "invalid choice: 'vit_x'" in ended.stderr
    assert not (tmp_path / "checkpoints").exists()


@pytest.fixture
def command_here(folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command in this process, with the test's folder in place of the repository's."""
    monkeypatch.setattr(fetch, "__defaults__", (folder, None))

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
    server.files[vit_l.file_name] = CONTENT

    command_here("--mirror", server.url)
    path_l, path_b = folder / vit_l.file_name, folder / FILE_NAME
    assert capsys.readouterr().out == f"vit_l: {path_l}\n"
    command_here("vit_b", "vit_l", "--mirror", f"{server.url}/")
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
    code = "import sys, sam_lungs.segmenters.checkpoints; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


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
        {WIDTH_KEY: torch.zeros(1).expand(768, 3, 16, 16), 7: torch.zeros(1)},
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
        {"a\nname" * 1000: torch.zeros(1), "mask_decoder.iou_token.weight": MISSING},
    ],
    ids=["missing", "another shape", "not a tensor", "unexpected", "a name that is none"],
)
def test_weights_of_other_parameters_are_refused(tmp_path, vit_b_weights, changes):
    weights = {
        key: value for key, value in {**vit_b_weights, **changes}.items() if value is not MISSING
    }
    message = error_of(load_sam, "vit_b", saved(tmp_path, weights))
    assert f"{len(changes)} parameters, the first {min(changes)!r:.80})" in message


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


# --- Files that are broken or were made to harm -------------------------------------------------


def small_checkpoint(path: Path, archive: bool) -> bytes:
    """Write, and return, a checkpoint of 2 KB, or 1 KB, that is whole, but no SAM's."""
    weights = {"a": torch.ones(3, 2), "b": torch.ones(2)}
    torch.save(weights, path, _use_new_zipfile_serialization=archive)
    return path.read_bytes()


FORMATS = pytest.mark.parametrize("archive", [True, False], ids=["archive", "legacy"])


@FORMATS
def test_a_truncated_checkpoint_is_told_at_any_length(tmp_path, archive):
    path = tmp_path / "weights.pth"
    content = small_checkpoint(path, archive)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert "is not a PyTorch file" in error_of(load_sam, "vit_b", path), length
    path.write_bytes(content)
    assert "holds no SAM weights" in error_of(load_sam, "vit_b", path)


@FORMATS
def test_a_byte_that_has_changed_is_told_at_any_place(tmp_path, archive):
    """What is said of the system, or where an archive has no meaning, may change."""
    path = tmp_path / "weights.pth"
    content = small_checkpoint(path, archive)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        error_of(load_sam, "vit_b", path)


COMPACT = CHECKPOINTS_FOLDER / CHECKPOINTS["compact"].file_name


@given(place=st.integers(0, COMPACT.stat().st_size - 1), bit=st.integers(0, 7))
def test_flipped_bits_are_refused_or_change_nothing(tmp_path_factory, place, bit):
    content = bytearray(COMPACT.read_bytes())
    content[place] ^= 1 << bit
    path = tmp_path_factory.getbasetemp() / "flipped.pth"
    path.write_bytes(content)
    try:
        flipped = load_sam("compact", path).state_dict()
    except InputError:
        return
    whole = torch.load(COMPACT, weights_only=True)
    assert all(torch.equal(flipped[key], whole[key]) for key in whole)


def test_no_parameter_of_an_archive_changes_unnoticed(tmp_path):
    """PyTorch itself does not look at the checksums."""
    path = tmp_path / "flipped.pth"
    with zipfile.ZipFile(COMPACT) as archive:
        entries = [entry for entry in archive.infolist() if "/data/" in entry.filename]
    content = COMPACT.read_bytes()
    for entry in entries[:: len(entries) // 20]:
        (name_bytes, extra_bytes) = struct.unpack_from("<HH", content, entry.header_offset + 26)
        place = entry.header_offset + 30 + name_bytes + extra_bytes + entry.file_size // 2
        changed = bytearray(content)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert "is not a PyTorch file" in error_of(load_sam, "compact", path)
        torch.load(path, weights_only=True)


def text(said: str) -> bytes:
    return b"X" + struct.pack("<I", len(said)) + said.encode()


def tensor(elements: int, *legacy: bytes) -> bytes:
    """Pickled: a tensor of one element, in storage 0, which is said to have so many."""
    size = b"J" + struct.pack("<i", elements)
    parts = (b"(", text("storage"), b"ctorch\nFloatStorage\n", text("0"), text("cpu"), size)
    storage = b"".join((*parts, *legacy, b"tQ"))
    hooks = b"ccollections\nOrderedDict\n)R"
    rest = b"K\x00" + b"K\x01\x85" + b"K\x01\x85" + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def pickle_of(value: bytes, name: bytes = text("a")) -> bytes:
    """Of a dictionary of one value."""
    return b"\x80\x02}" + name + value + b"s."


def archive_of(pickled: bytes, storage: bytes = bytes(4), **options: int) -> bytes:
    """A checkpoint of one storage."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr("made/data.pkl", pickled)
        archive.writestr("made/data/0", storage)
        archive.writestr("made/version", "3\n")
    return file.getvalue()


def legacy_of(pickled: bytes) -> bytes:
    """A checkpoint of one storage, of one element, in PyTorch's format before 1.6."""
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {"int": 4}}
    before = [pickle.dumps(said, 2) for said in (0x1950A86A20F9469CFC6C, 1001, system)]
    return b"".join((*before, pickled, pickle.dumps(["0"], 2), struct.pack("<q", 1), bytes(4)))


def claims_gigabytes(content: bytes) -> bytes:
    """The archive, its storage said to have 2 GB, uncompressed, where the archive lists it."""
    listed = content.index(b"PK\1\2", content.index(b"PK\1\2") + 1)
    return content[: listed + 20] + struct.pack("<II", 1 << 31, 1 << 31) + content[listed + 28 :]


WHOLE = [archive_of(pickle_of(tensor(1))), legacy_of(pickle_of(tensor(1, b"N")))]
HUGE = b"J" + struct.pack("<i", 2**31 - 1)
PAIRS = b")" + b"q\0h\0\x86" * 40  # of one pair twice, which is of one pair twice, which
HIDDEN_PAIRS = b")" + b"(eq\0h\0\x86" * 40
TWO_SIZES = tensor(1) + b"s" + text("b") + tensor(2)
VALUES = {
    "a storage of 8 GB": tensor(2**31 - 1),
    "a storage of less than nothing": tensor(-1),
    "a storage of two sizes": TWO_SIZES,
    "an array of 2 GB": b"cbuiltins\nbytearray\n" + HUGE + b"\x85R",
    "a tensor of 8 GB": b"ctorch\nFloatTensor\n" + HUGE + b"\x85\x81",
    "a set": b"cbuiltins\nset\ncbuiltins\nbytearray\n" + HUGE + b"\x85R\x85R",
    "a memo of 64 GB": b"Nr" + struct.pack("<I", 2**32 - 1),
    "a text of 4 GB": b"X" + struct.pack("<I", 2**32 - 1),
    "tuples in tuples": b")" + b"\x85" * 900_000,
}
HOSTILE = {
    **{said: archive_of(pickle_of(value)) for said, value in VALUES.items()},
    **{f"legacy, {said}": legacy_of(pickle_of(value)) for said, value in VALUES.items()},
    "legacy, a storage of 8 GB": legacy_of(pickle_of(tensor(2**31 - 1, b"N"))),
    "tuples in tuples for a name": archive_of(pickle_of(b"N", b")" + b"\x85" * 900_000)),
    "legacy, tuples in tuples for a name": legacy_of(pickle_of(b"N", b")" + b"\x85" * 900_000)),
    "pairs of pairs for a name": archive_of(pickle_of(b"N", PAIRS)),
    "legacy, pairs of pairs for a name": legacy_of(pickle_of(b"N", HIDDEN_PAIRS)),
    "two megabytes of pickle": archive_of(pickle_of(b"N" + b"N0" * (1 << 20))),
    "compressed": archive_of(pickle_of(tensor(1)), bytes(1 << 26), compression=8),
    "listed as larger": claims_gigabytes(WHOLE[0]),
    "a name in two cases": WHOLE[0].replace(b"made/version", b"Made/daTa/0\0"),
    "no storage": WHOLE[0].replace(b"made/data/0", b"made/data/1"),
    "a wrong checksum": WHOLE[0].replace(bytes(4) + b"PK", b"\1\0\0\0PK", 1),
}
LOAD_ALL = """
import resource, sys
from pathlib import Path
import torch
from segment_anything import sam_model_registry
from sam_lungs.segmenters.checkpoints import load_sam
from sam_lungs.utils.errors import InputError

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10

virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
before = peak()
resource.setrlimit(resource.RLIMIT_AS, (virtual + (150 << 20), -1))
for path in sys.argv[1:]:
    try:
        load_sam("vit_b", Path(path))
    except InputError as error:
        print(error)
print(peak() - before)
"""


def load_in_little_memory(*paths: Path) -> tuple[list[str], int]:
    """Load checkpoints in a process that may take 150 MB; return its errors and the MB it took."""
    ended = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, *paths], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-1000:]
    *errors, megabytes = ended.stdout.splitlines()
    return errors, int(megabytes)


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits on memory")


@needs_linux
def test_checkpoints_made_to_harm_are_refused_and_cost_no_memory(tmp_path):
    paths = [tmp_path / f"{said}.pth" for said in HOSTILE]
    for path, content in zip(paths, HOSTILE.values(), strict=True):
        path.write_bytes(content)
    errors, megabytes = load_in_little_memory(*paths)
    refused = "is not a PyTorch file of plain tensors, or not all of one: download it again"
    assert errors == [f"{path}: {refused}" for path in paths]
    assert megabytes < 30


@needs_linux
@FORMATS
def test_too_little_memory_for_the_weights_is_told(tmp_path, archive):
    path = tmp_path / "weights.pth"
    torch.save({WIDTH_KEY: torch.zeros(50_000_000)}, path, _use_new_zipfile_serialization=archive)
    (error,), _ = load_in_little_memory(path)
    assert error.startswith(f"{path}: too little memory for the weights: ")
    path.unlink()


@pytest.mark.parametrize("content", WHOLE, ids=["archive", "legacy"])
def test_what_the_harmful_checkpoints_are_made_from_is_harmless(tmp_path, content):
    path = tmp_path / "weights.pth"
    path.write_bytes(content)
    assert torch.load(path, weights_only=True) == {"a": torch.zeros(1)}
    assert error_of(load_sam, "vit_b", path).startswith(f"{path}: holds no SAM weights")


class Hollow:
    """Is pickled as an OrderedDict whose methods attributes stand in for."""

    def __init__(self, content: dict) -> None:
        self.content = content

    def __reduce__(self):
        attributes = dict.fromkeys(["items", "keys", "copy", "__iter__", "_metadata"], 1)
        return OrderedDict, (), attributes, None, iter(self.content.items())


def test_attributes_of_a_dictionary_do_not_stand_in_for_its_methods(tmp_path):
    weights = torch.load(COMPACT, weights_only=True)
    loaded = load_sam("compact", saved(tmp_path, Hollow(weights))).state_dict()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)


def test_parameters_are_tensors(tmp_path):
    weights = torch.load(COMPACT, weights_only=True)
    parameters = {key: torch.nn.Parameter(value) for key, value in weights.items()}
    loaded = load_sam("compact", saved(tmp_path, parameters)).state_dict()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)


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


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_what_is_no_file_is_no_checkpoint(tmp_path, make):
    path = tmp_path / "weights.pth"
    make(path)
    assert error_of(load_sam, "vit_b", path) == f"{path}: not a regular file; check the path"
