"""Checkpoints: download, verify and load, with every fault of a download or a file.

No test needs the network: a server on this machine serves small files.
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
from safetensors.torch import save_file
from segment_anything import sam_model_registry
from server import CONTENT, HALF, Server, answers, error_of, files_in

from sam_lungs.segmenters.checkpoints import (
    CHECKPOINTS,
    CHECKPOINTS_FOLDER,
    URL,
    fetch,
    load_sam,
    main,
)
from sam_lungs.utils.errors import InputError

FILE_NAME = "sam_vit_b_01ec64.pth"
COMPACT = CHECKPOINTS_FOLDER / CHECKPOINTS["compact"].file_name
WIDTH_KEY = "image_encoder.patch_embed.proj.weight"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "checkpoints"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    """A server of a small file that is registered as the official vit_b checkpoint."""
    monkeypatch.setenv("no_proxy", "*")
    sha256 = hashlib.sha256(CONTENT).hexdigest()
    vit_b = replace(CHECKPOINTS["vit_b"], size_bytes=len(CONTENT), sha256=sha256)
    monkeypatch.setitem(CHECKPOINTS, "vit_b", vit_b)
    with Server() as server:
        server.files = {FILE_NAME: CONTENT}
        yield server


# --- The registry -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["vit_b", "vit_l", "vit_h"])
def test_the_registered_width_and_size_fit_the_architecture(name):
    checkpoint = CHECKPOINTS[name]
    with torch.device("meta"):
        weights = sam_model_registry[name]().state_dict()
    assert checkpoint.file_name.startswith(f"sam_{name}_")
    assert weights[WIDTH_KEY].shape[0] == checkpoint.encoder_width
    # The published files are float32: four bytes per parameter, and little more.
    parameter_bytes = 4 * sum(weight.numel() for weight in weights.values())
    assert parameter_bytes < checkpoint.size_bytes < 1.001 * parameter_bytes
    assert re.fullmatch("[0-9a-f]{64}", checkpoint.sha256)


# --- Fetching -----------------------------------------------------------------------------------


def test_fetch_downloads_once_and_resumes(server, folder):
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
    assert "is not the published one" in error_of(fetch, "vit_b", folder, server.url)
    assert files_in(folder) == {}


def test_a_failed_download_names_url_file_and_folder(server, folder):
    server.answer = answers(404)
    message = error_of(fetch, "vit_b", folder, server.url)
    assert message.startswith(f"{server.url}/{FILE_NAME}: cannot be downloaded")
    assert f"{FILE_NAME} into {folder} by hand" in message


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_something_else_than_a_file_is_refused(server, folder, make):
    folder.mkdir()
    make(folder / FILE_NAME)
    assert "not a regular file" in error_of(fetch, "vit_b", folder, server.url)


@pytest.mark.parametrize("size", [0, HALF, len(CONTENT), len(CONTENT) + 1])
def test_a_file_with_other_content_is_refused_and_kept(server, folder, size):
    content = bytes(size)
    folder.mkdir()
    (folder / FILE_NAME).write_bytes(content)
    message = error_of(fetch, "vit_b", folder)
    assert message.startswith(f"{folder / FILE_NAME}: not the official vit_b checkpoint")
    assert hashlib.sha256(content).hexdigest() in message
    assert "--checkpoint" in message
    assert "delete it to download it again" in message
    assert files_in(folder) == {FILE_NAME: content}
    assert server.ranges == []


# --- The command --------------------------------------------------------------------------------


@pytest.fixture
def run_command(run_copied):
    return partial(run_copied, "sam_lungs.segmenters.checkpoints")


@pytest.mark.parametrize(
    ("arguments", "first", "others"),
    [
        ([], "vit_l", []),
        (
            ["vit_h", "vit_b", "compact", "edgetam"],
            "vit_h",
            [f"{URL}/{FILE_NAME}", "https://huggingface.co/yonigozlan/EdgeTAM-hf"],
        ),
    ],
)
def test_the_command_without_network_names_all_files_in_one_line(
    run_command, tmp_path, arguments, first, others
):
    ended = run_command(*arguments)
    assert ended.returncode == 1
    assert ended.stdout == ""
    (line,) = ended.stderr.splitlines()
    assert line.startswith(f"error: {URL}/{CHECKPOINTS[first].file_name}: cannot be downloaded")
    assert f"put {CHECKPOINTS[first].file_name} into {tmp_path / 'checkpoints'} by hand" in line
    assert f"scripts/download_model_checkpoints.sh {first} --mirror URL" in line
    assert line.partition("; also missing: ")[2] == ", ".join(others)


def test_the_command_downloads_from_a_mirror(server, run_command):
    ended = run_command("--mirror", server.url, "vit_b")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert f"{server.url}/{FILE_NAME}: the server offers 300,000 bytes instead of 375,0" in line
    assert server.ranges == [None]


def test_the_command_refuses_an_unknown_name(run_command, tmp_path):
    ended = run_command("vit_b", "vit_x")
    assert ended.returncode == 1
    (line,) = ended.stderr.splitlines()
    assert line.startswith("error: vit_x: unknown model; the models are vit_b, vit_l, ")
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
    vit_l = replace(CHECKPOINTS["vit_b"], file_name=CHECKPOINTS["vit_l"].file_name)
    monkeypatch.setitem(CHECKPOINTS, "vit_l", vit_l)
    server.files[vit_l.file_name] = CONTENT

    command_here("--mirror", server.url)
    path_l, path_b = folder / vit_l.file_name, folder / FILE_NAME
    assert capsys.readouterr().out == f"vit_l: {path_l}\n"
    command_here("vit_b", "vit_l", "--mirror", f"{server.url}/")
    assert capsys.readouterr().out == f"vit_b: {path_b}\nvit_l: {path_l}\n"
    assert len(server.ranges) == 2
    assert files_in(folder) == {path_l.name: CONTENT, path_b.name: CONTENT}


def test_the_command_verifies_an_existing_file(server, folder, command_here):
    folder.mkdir()
    (folder / FILE_NAME).write_bytes(bytes(len(CONTENT)))
    message = error_of(command_here, "vit_b")
    assert f"{folder / FILE_NAME}: not the official vit_b checkpoint" in message
    assert files_in(folder) == {FILE_NAME: bytes(len(CONTENT))}


def test_the_module_does_not_import_torch():
    code = "import sys, sam_lungs.segmenters.checkpoints; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


# --- Loading ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vit_b_weights() -> dict[str, torch.Tensor]:
    """Weights with the names and shapes of vit_b; each is one number, so that its file is small."""
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
def test_weights_of_another_architecture_are_refused_by_name(tmp_path, held, named):
    width = CHECKPOINTS[held].encoder_width
    path = saved(tmp_path, {WIDTH_KEY: torch.zeros(1).expand(width, 3, 16, 16)})
    assert error_of(load_sam, named, path) == (
        f"{path}: holds {held} weights, not {named}; use --model {held}"
    )


@pytest.mark.parametrize(
    "content",
    [
        {},
        {"net": {WIDTH_KEY: torch.zeros(768, 3, 16, 16)}},
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
def test_a_file_without_sam_weights_is_refused(tmp_path, content):
    path = saved(tmp_path, content)
    assert error_of(load_sam, "vit_b", path).startswith(f"{path}: holds no SAM weights")


# --- Files of a training ------------------------------------------------------------------------


def with_prefix(prefix: str, weights: dict) -> dict:
    return {f"{prefix}{key}": weight for key, weight in weights.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "sam.", "model."])
@pytest.mark.parametrize("level", ["", "model", "state_dict", "model_state"])
def test_one_level_and_one_prefix_are_removed(tmp_path, level, prefix):
    weights = torch.load(COMPACT, weights_only=True)
    content = with_prefix(prefix, weights)
    if level:
        optimizer = {"state": {0: {"step": torch.zeros(1)}}, "param_groups": [{"lr": 1e-4}]}
        content = {"epoch": 3, level: content, "optimizer": optimizer}
    loaded = load_sam("compact", saved(tmp_path, content)).state_dict()
    assert loaded.keys() == weights.keys()
    assert all(torch.equal(loaded[key], weights[key]) for key in loaded)


def test_a_prefix_in_safetensors_is_removed(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(with_prefix("module.", torch.load(COMPACT, weights_only=True)), path)
    load_sam("compact", path)


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ({"optimizer": {}, "epoch": 3, "net": {WIDTH_KEY: 1}}, "only optimizer, epoch, net;"),
        ({"model": {"a": 1}, "epoch": 3}, "only model.a;"),
        ({"model": {"a": 1}, "state_dict": {"b": 1}}, "only model, state_dict;"),
        ({"model": {"model": {WIDTH_KEY: torch.zeros(96, 3, 16, 16)}}}, "only model.model;"),
        (dict.fromkeys("abcdefg", 1), "only a, b, c, d, e, ...;"),
        ({"a\nb" * 30: 1}, "only a\\nba\\nb"),
        ({}, "only an empty dictionary;"),
        ([1], "only a list;"),
        ({"module." + WIDTH_KEY: torch.zeros(96, 3, 16, 16), "b": torch.zeros(1)}, "only module."),
    ],
    ids=repr,
)
def test_what_another_file_holds(tmp_path, content, held):
    message = error_of(load_sam, "compact", saved(tmp_path, content))
    assert f"holds no SAM weights, {held}" in message
    assert len(message) < 500


MISSING = object()


@pytest.mark.parametrize(
    "changes",
    [
        {"mask_decoder.iou_token.weight": MISSING},
        {"mask_decoder.iou_token.weight": torch.zeros(2, 256)},
        {"mask_decoder.iou_token.weight": "not a tensor"},
        {"mask_decoder.hf_token.weight": torch.zeros(1, 256)},
        {7: torch.zeros(1)},
        {"a\nname" * 1000: torch.zeros(1), "mask_decoder.iou_token.weight": MISSING},
    ],
    ids=["missing", "another shape", "not a tensor", "unexpected", "a number", "two lines"],
)
def test_missing_unexpected_or_misshapen_parameters_are_refused(tmp_path, vit_b_weights, changes):
    weights = {
        key: value for key, value in {**vit_b_weights, **changes}.items() if value is not MISSING
    }
    message = error_of(load_sam, "vit_b", saved(tmp_path, weights))
    assert f": {len(changes)} parameters are missing, unexpected or of another shape" in message
    assert f"such as {min(map(str, changes))!r:.80};" in message


class Trap:
    """Creates a folder when it is unpickled."""

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
    assert error_of(load_sam, "vit_b", path).startswith(f"{path}: not a complete file of weights")
    assert not made.exists()


def test_the_trap_of_the_previous_test_works(tmp_path):
    path = saved(tmp_path, Trap(tmp_path / "made"))
    torch.load(path, weights_only=False)
    assert (tmp_path / "made").exists()


# --- Damaged and malicious files ----------------------------------------------------------------


def small_checkpoint(path: Path) -> bytes:
    """Write and return a valid checkpoint of 2 KB without SAM weights."""
    torch.save({"a": torch.ones(3, 2), "b": torch.ones(2)}, path)
    return path.read_bytes()


def test_a_truncated_checkpoint_is_refused_at_any_length(tmp_path):
    path = tmp_path / "weights.pth"
    content = small_checkpoint(path)
    for length in range(len(content)):
        path.write_bytes(content[:length])
        assert "not a complete file of weights" in error_of(load_sam, "vit_b", path), length
    path.write_bytes(content)
    assert "holds no SAM weights" in error_of(load_sam, "vit_b", path)


def test_a_changed_byte_gives_one_line_at_any_place(tmp_path):
    path = tmp_path / "weights.pth"
    content = small_checkpoint(path)
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 1 << place % 8
        path.write_bytes(changed)
        error_of(load_sam, "vit_b", path)


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


def test_a_wrong_checksum_is_refused(tmp_path):
    """PyTorch itself does not verify the checksums."""
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
        assert "not a complete file of weights" in error_of(load_sam, "compact", path)
        torch.load(path, weights_only=True)


def text(characters: str) -> bytes:
    return b"X" + struct.pack("<I", len(characters)) + characters.encode()


def tensor(elements: int) -> bytes:
    """Return the pickle of a tensor of one element, whose storage claims to have `elements`."""
    size = b"J" + struct.pack("<i", elements)
    parts = (b"(", text("storage"), b"ctorch\nFloatStorage\n", text("0"), text("cpu"), size)
    storage = b"".join((*parts, b"tQ"))
    hooks = b"ccollections\nOrderedDict\n)R"
    rest = b"K\x00" + b"K\x01\x85" + b"K\x01\x85" + b"\x89" + hooks
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + rest + b"tR"


def archive_of(value: bytes, storage: bytes = bytes(4), **options: int) -> bytes:
    """Return a checkpoint of one value and one storage."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **options) as archive:
        archive.writestr("made/data.pkl", b"\x80\x02}" + text("a") + value + b"s.")
        archive.writestr("made/data/0", storage)
        archive.writestr("made/version", "3\n")
    return file.getvalue()


def claims_gigabytes(content: bytes) -> bytes:
    """Return the archive with 2 GB as the size of the storage in the list of its entries."""
    listed = content.index(b"PK\1\2", content.index(b"PK\1\2") + 1)
    return content[: listed + 20] + struct.pack("<II", 1 << 31, 1 << 31) + content[listed + 28 :]


WHOLE = archive_of(tensor(1))
MALICIOUS = {
    "a storage of 8 GB": archive_of(tensor(2**31 - 1)),
    "a storage of negative size": archive_of(tensor(-1)),
    "a memo of 64 GB": archive_of(b"Nr" + struct.pack("<I", 2**32 - 1)),
    "a text of 4 GB": archive_of(b"X" + struct.pack("<I", 2**32 - 1)),
    "compressed": archive_of(tensor(1), bytes(1 << 26), compression=8),
    "listed as larger": claims_gigabytes(WHOLE),
    "no storage": WHOLE.replace(b"made/data/0", b"made/data/1"),
    "a wrong checksum": WHOLE.replace(bytes(4) + b"PK", b"\1\0\0\0PK", 1),
}
LOAD_ALL = """
import resource, sys
from pathlib import Path
import safetensors.torch
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
    """Load checkpoints in a process with 150 MB of memory; return its errors and MB used."""
    ended = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, *paths], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr[-1000:]
    *errors, megabytes = ended.stdout.splitlines()
    return errors, int(megabytes)


needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's limits on memory")


@needs_linux
def test_files_with_false_claims_are_refused_and_use_no_memory(tmp_path):
    paths = [tmp_path / f"{name}.pth" for name in MALICIOUS]
    for path, content in zip(paths, MALICIOUS.values(), strict=True):
        path.write_bytes(content)
    errors, megabytes = load_in_little_memory(*paths)
    # The claims of a storage or a memo alone use no memory: the tensors are memory-mapped.
    reasons = ("not a complete file of weights", "holds no SAM weights")
    for path, error in zip(paths, errors, strict=True):
        assert error.startswith(tuple(f"{path}: {reason}" for reason in reasons))
    assert megabytes < 30


@needs_linux
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_too_little_memory_for_the_weights(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    save = torch.save if suffix == ".pth" else save_file
    save({WIDTH_KEY: torch.zeros(50_000_000)}, path)
    (error,), _ = load_in_little_memory(path)
    assert error.startswith(f"{path}: too little memory for the weights; ")
    path.unlink()


def test_the_base_of_the_malicious_files_is_valid(tmp_path):
    path = tmp_path / "weights.pth"
    path.write_bytes(WHOLE)
    assert torch.load(path, weights_only=True) == {"a": torch.zeros(1)}
    assert error_of(load_sam, "vit_b", path).startswith(f"{path}: holds no SAM weights")


def test_the_format_of_pytorch_before_1_6_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    weights = torch.load(COMPACT, weights_only=True)
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    assert "save it with PyTorch 1.6 or newer" in error_of(load_sam, "compact", path)


@pytest.mark.parametrize(
    "make",
    [
        lambda weight: weight.to_sparse(),
        lambda weight: weight.to("meta"),
        lambda weight: weight.to(torch.int32),
        lambda weight: torch.quantize_per_tensor(weight.float(), 0.1, 0, torch.qint8),
    ],
    ids=["sparse", "without data", "integers", "quantized"],
)
@pytest.mark.filterwarnings("ignore")  # PyTorch's, about old kinds of tensors
def test_only_plain_tensors_are_parameters(tmp_path, make):
    weights = torch.load(COMPACT, weights_only=True)
    weights["mask_decoder.iou_token.weight"] = make(weights["mask_decoder.iou_token.weight"])
    message = error_of(load_sam, "compact", saved(tmp_path, weights))
    assert "mask_decoder.iou_token.weight" in message or "not a complete file" in message


# --- Safetensors --------------------------------------------------------------------------------


def test_safetensors_give_the_same_model(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(torch.load(COMPACT, weights_only=True), path)
    expected, loaded = (load_sam("compact", each).state_dict() for each in (COMPACT, path))
    assert loaded.keys() == expected.keys()
    assert all(torch.equal(loaded[key], expected[key]) for key in loaded)
    assert {weight.dtype for weight in loaded.values()} == {torch.float32}


def test_truncated_safetensors_are_refused(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_file(torch.load(COMPACT, weights_only=True), path)
    content = path.read_bytes()
    for length in (0, 7, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        assert "not a complete file of weights" in error_of(load_sam, "compact", path)


def test_safetensors_with_other_names_are_refused(tmp_path):
    path = tmp_path / "model.safetensors"
    save_file({"vision_encoder.pos_embed": torch.zeros(3)}, path)
    assert "segment-anything's parameter names" in error_of(load_sam, "vit_b", path)


# --- Other content ------------------------------------------------------------------------------


class Hollow:
    """Is pickled as an OrderedDict with attributes in place of its methods."""

    def __init__(self, content: dict) -> None:
        self.content = content

    def __reduce__(self):
        attributes = dict.fromkeys(["items", "keys", "copy", "__iter__", "_metadata"], 1)
        return OrderedDict, (), attributes, None, iter(self.content.items())


def test_attributes_of_a_dictionary_do_not_replace_its_methods(tmp_path):
    weights = torch.load(COMPACT, weights_only=True)
    loaded = load_sam("compact", saved(tmp_path, Hollow(weights))).state_dict()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)


def test_parameters_are_loaded_like_tensors(tmp_path):
    weights = torch.load(COMPACT, weights_only=True)
    parameters = {key: torch.nn.Parameter(value) for key, value in weights.items()}
    loaded = load_sam("compact", saved(tmp_path, parameters)).state_dict()
    assert all(torch.equal(loaded[key], weights[key]) for key in weights)


@given(content=st.binary(max_size=200))
def test_any_bytes_give_one_line(tmp_path_factory, content):
    path = tmp_path_factory.getbasetemp() / "any_bytes.pth"
    path.write_bytes(content)
    assert error_of(load_sam, "vit_b", path).startswith(f"{path}: ")


def test_a_missing_checkpoint(tmp_path):
    path = tmp_path / "missing.pth"
    assert error_of(load_sam, "vit_b", path) == (
        f"{path}: cannot be read (No such file or directory); check the path"
    )


@pytest.mark.parametrize("make", [os.mkdir, os.mkfifo])
def test_something_else_than_a_file_is_no_checkpoint(tmp_path, make):
    path = tmp_path / "weights.pth"
    make(path)
    assert error_of(load_sam, "vit_b", path) == f"{path}: not a regular file; check the path"
