"""Fetching models of the hub; a server on this machine answers as huggingface.co does."""

import json
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from hub_server import REPOSITORY, REVISION, HubServer, sha256
from server import CONTENT, error_of

from sam_lungs.segmenters import hub
from sam_lungs.segmenters.presets import Preset, preset_of
from sam_lungs.utils.errors import InputError

constants = pytest.importorskip("huggingface_hub.constants")

NAME = f"hub:{REPOSITORY}@{REVISION}"
FOLDER = f"owner--name@{REVISION}"
FILES = {
    "config.json": b'{"model_type": "sam"}',
    "model.safetensors": CONTENT,
    "pytorch_model.bin": b"pickle",
    "README.md": b"text",
    "onnx/config.json": b"{}",
}
PINNED = preset_of(NAME)
UNPINNED = Preset("sam", REPOSITORY)


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    with HubServer() as server:
        server.files = dict(FILES)
        monkeypatch.setenv("HF_ENDPOINT", f"{server.endpoint}/")
        yield server


def test_json_and_safetensors_are_fetched_once(server, tmp_path):
    folder = hub.fetch(NAME, PINNED, tmp_path)
    assert folder == tmp_path / FOLDER
    kept = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    assert kept == {"config.json", "model.safetensors", hub.RECORD}
    assert (folder / "model.safetensors").read_bytes() == CONTENT
    hashes = {name: sha256(FILES[name]) for name in ("config.json", "model.safetensors")}
    assert hub.recorded(folder) == hashes
    record = json.loads((folder / hub.RECORD).read_bytes())
    assert (record["repository"], record["revision"]) == (REPOSITORY, REVISION)

    server.error = "RepoNotFound"
    assert hub.fetch(NAME, PINNED, tmp_path) == folder
    assert sorted(server.requested) == sorted(hashes)


def test_without_a_revision_the_current_one_is_kept(server, tmp_path, capsys):
    assert hub.folder_of("slimsam_50", UNPINNED, tmp_path) == tmp_path / "slimsam_50@"
    folder = hub.fetch("slimsam_50", UNPINNED, tmp_path)
    assert folder == tmp_path / f"slimsam_50@{REVISION}"
    assert f"later runs use {REVISION}" in capsys.readouterr().out
    server.error = "RepoNotFound"
    assert hub.fetch("slimsam_50", UNPINNED, tmp_path) == folder


@pytest.mark.parametrize("preset", [PINNED, UNPINNED], ids=["pinned", "not pinned"])
def test_an_interrupted_fetch_is_resumed_at_its_revision(server, tmp_path, preset):
    server.listed["model.safetensors"] = bytes(len(CONTENT))
    assert "not the published one" in error_of(hub.fetch, NAME, preset, tmp_path)
    assert not (tmp_path / FOLDER).exists()
    server.listed = {}
    server.requested.clear()
    assert hub.fetch(NAME, preset, tmp_path) == tmp_path / FOLDER
    assert server.requested == ["model.safetensors"]


def test_a_broken_connection_is_resumed(server, tmp_path):
    """By newer versions of huggingface_hub at once, otherwise by the next run."""
    server.cut = {"model.safetensors"}
    with suppress(InputError):
        hub.fetch(NAME, PINNED, tmp_path)
    folder = hub.fetch(NAME, PINNED, tmp_path)
    assert (folder / "model.safetensors").read_bytes() == CONTENT
    assert server.requested.count("model.safetensors") == 2


def test_two_fetches_at_once(server, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        calls = [pool.submit(hub.fetch, NAME, PINNED, tmp_path) for _ in range(2)]
    assert {call.result() for call in calls} == {tmp_path / FOLDER}
    assert sorted(server.requested) == ["config.json", "model.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == [FOLDER]


def test_a_folder_that_cannot_be_written(server, tmp_path):
    (tmp_path / "file").write_text("")
    message = error_of(hub.fetch, NAME, PINNED, tmp_path / "file" / "checkpoints")
    assert "cannot be fetched ([Errno 20] Not a directory" in message


def test_a_known_hash_is_checked(server, tmp_path):
    preset = Preset("sam", REPOSITORY, REVISION, {"model.safetensors": "0" * 64})
    message = error_of(hub.fetch, NAME, preset, tmp_path)
    assert f"not the published one (SHA-256 {sha256(CONTENT)} instead of 0000" in message
    assert not (tmp_path / FOLDER).exists()


def test_a_repository_without_safetensors(server, tmp_path):
    del server.files["model.safetensors"]
    message = error_of(hub.fetch, NAME, PINNED, tmp_path)
    assert message.startswith(f"{REPOSITORY}: revision {REVISION} holds no safetensors")
    assert server.requested == []


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("GatedRepo", f"ask at https://huggingface.co/{REPOSITORY}, then run: hf auth login"),
        ("RevisionNotFound", f"has no revision {REVISION}; copy one from"),
        ("RepoNotFound", "is not on the hub, or not public"),
    ],
)
def test_refusals_of_the_hub(server, tmp_path, error, words):
    server.error = error
    message = error_of(hub.fetch, NAME, PINNED, tmp_path)
    assert message.startswith(f"{REPOSITORY}: ")
    assert words in message
    assert list(tmp_path.iterdir()) == []


def test_a_revision_of_another_repository(server, tmp_path):
    other = f"hub:{REPOSITORY}@{'f' * 40}"
    assert "has no revision ffff" in error_of(hub.fetch, other, preset_of(other), tmp_path)


def test_without_network(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    message = error_of(hub.fetch, NAME, PINNED, tmp_path)
    assert message.startswith(f"{REPOSITORY}: cannot be fetched (")
    assert "HF_ENDPOINT" in message
    assert message.endswith(f"copy what it adds to its checkpoints folder to {tmp_path}")
    assert "run it on a machine with network" in message


def test_offline(server, tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "cannot be fetched (" in error_of(hub.fetch, NAME, PINNED, tmp_path)


def test_without_the_extra(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "find_spec", lambda package: None)
    assert error_of(hub.fetch, NAME, PINNED, tmp_path) == (
        f"{NAME}: needs huggingface_hub; install it with: pip install '.[models]'"
    )


def test_a_damaged_record(server, tmp_path):
    folder = hub.fetch(NAME, PINNED, tmp_path)
    (folder / hub.RECORD).write_text("[]")
    assert "not a record of fetched files" in error_of(hub.recorded, folder)
