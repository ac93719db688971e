import os

import numpy as np
import pytest
import torch

from sam_lungs.segmenters import embeddings
from sam_lungs.segmenters.embeddings import DTYPES, EmbeddingStore
from sam_lungs.utils.errors import InputError

SIGNATURE = {
    "window_hu": [-1400.0, 100.0],
    "checkpoint": "ab" * 32,
    "precision": "float32",
    "versions": {"torch": "2.6", "numpy": "1.26"},
}
VOXELS = np.arange(12, dtype=np.int16).reshape(3, 4)


@pytest.fixture
def embedding() -> torch.Tensor:
    return torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))


def store(folder, dtype="float32", **changed) -> EmbeddingStore:
    return EmbeddingStore(folder, SIGNATURE | changed, DTYPES[dtype])


@pytest.mark.parametrize("dtype", DTYPES)
def test_what_is_kept_comes_back_rounded_as_said(tmp_path, embedding, dtype):
    held = store(tmp_path / "a" / "b", dtype)
    held.save(7, VOXELS, embedding)
    assert torch.equal(held.load(7, VOXELS), held.round(embedding))
    assert torch.equal(held.round(embedding), embedding) == (dtype == "float32")
    assert held.load(7, VOXELS).dtype == torch.float32
    assert held.load(6, VOXELS) is None


@pytest.mark.parametrize(
    "changed",
    [
        {"window_hu": [-1400.0, 101.0]},
        {"window_hu": None},
        {"checkpoint": "ac" * 32},
        {"precision": "bfloat16"},
        {"versions": {"torch": "2.7", "numpy": "1.26"}},
        {"versions": {"torch": "2.6"}},
        {"dtype": "float16"},
    ],
    ids=str,
)
def test_every_field_of_the_signature_counts(tmp_path, embedding, changed):
    store(tmp_path).save(0, VOXELS, embedding)
    assert store(tmp_path, **changed).load(0, VOXELS) is None
    assert store(tmp_path).load(0, VOXELS) is not None


def test_so_do_voxels_their_type_and_shape_and_the_preprocessing(tmp_path, embedding, monkeypatch):
    held = store(tmp_path)
    held.save(0, VOXELS, embedding)
    other = VOXELS.copy()
    other[1, 1] += 1
    for voxels in (other, VOXELS.view(np.uint16), VOXELS.reshape(4, 3), VOXELS[:2]):
        assert held.load(0, voxels) is None
    # How they lie in memory does not.
    assert held.load(0, np.asfortranarray(VOXELS)) is not None
    monkeypatch.setattr(embeddings, "PREPROCESSING", "another")
    assert held.load(0, VOXELS) is None


def test_no_flipped_byte_and_no_truncation_gives_another_embedding(tmp_path, embedding):
    held = store(tmp_path)
    held.save(0, VOXELS, embedding)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    refused = 0
    for place in range(len(content)):
        for changed in (
            content[:place],
            content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :],
        ):
            path.write_bytes(changed)
            loaded = held.load(0, VOXELS)
            refused += loaded is None
            assert loaded is None or torch.equal(loaded, embedding)
    # Some bytes, such as the zip's time stamps, mean nothing.
    assert refused > 1.7 * len(content)
    path.write_bytes(content)
    assert torch.equal(held.load(0, VOXELS), embedding)


def test_a_file_that_would_run_code_is_not_unpickled(tmp_path):
    np.savez(tmp_path / "slice_0000.npz", signature=np.array([print], dtype=object))
    assert store(tmp_path).load(0, VOXELS) is None


@pytest.mark.parametrize("step", [(np, "savez"), (os, "replace")], ids=str)
def test_a_kill_at_any_step_leaves_what_was_there(tmp_path, embedding, monkeypatch, step):
    held = store(tmp_path)
    held.save(0, VOXELS, embedding)
    (path,) = tmp_path.iterdir()
    half = path.read_bytes()[:500]

    def killed(temporary, *args, **kwargs):
        temporary.write_bytes(half)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*step, killed)
        for index in (0, 1):
            with pytest.raises(KeyboardInterrupt):
                held.save(index, VOXELS, embedding + 1)
    assert list(tmp_path.iterdir()) == [path]
    assert torch.equal(held.load(0, VOXELS), embedding)
    assert held.load(1, VOXELS) is None


def test_a_folder_that_cannot_be_written_is_named(tmp_path, embedding):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        store(tmp_path / "file").save(0, VOXELS, embedding)
