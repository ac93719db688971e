import importlib.metadata
import os

import numpy as np
import pytest
import torch

from sam_lungs.segmenters.base import EMBEDDINGS_PRECISIONS, Decoded, Segmenter
from sam_lungs.segmenters.embeddings import EmbeddingStore
from sam_lungs.segmenters.families import describe
from sam_lungs.segmenters.registry import identify
from sam_lungs.utils.errors import InputError

IDENTITY = {
    "model": "vit_l",
    "family": "segment-anything",
    "weights": {"sam.pth": "ab" * 32},
    "preprocessing": "as before",
    "packages": {"torch": "2.6", "numpy": "1.26"},
}
VOXELS = np.arange(12, dtype=np.int16).reshape(3, 4)


class ThreeTensors:
    """A segmenter with three tensors per embedding, like SAM 2."""

    device = torch.device("cpu")
    identity = IDENTITY

    def prepare(self, image_rgb, in_window=None):
        return torch.as_tensor(image_rgb).permute(2, 0, 1)

    def encode(self, pictures):
        batch = torch.stack(pictures).float() / 7
        return batch, batch.sum(1), batch[:, :1, ::2, ::2]

    def decode(self, embeddings, size_rc, prompts, mask_logits=None):
        shape = len(prompts), len(prompts[0])
        score = sum(tensor.flatten(1).sum(1) for tensor in embeddings)
        masks = torch.zeros((*shape, *size_rc), dtype=torch.bool)
        return Decoded(masks, score[:, None].expand(shape), torch.zeros((*shape, 4, 4)))

    def batch_size(self):
        return 1


@pytest.fixture
def embedding() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=generator) for shape in ((2, 3, 3), (4, 2, 2), (5,)))


def store(
    folder, identity=IDENTITY, window_hu=(-1400.0, 100.0), precision="float32", stored="float32"
) -> EmbeddingStore:
    return EmbeddingStore(folder, identity, window_hu, precision, stored)


def assert_equal(one, other) -> None:
    assert len(one) == len(other)
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("stored", EMBEDDINGS_PRECISIONS)
@pytest.mark.parametrize("count", [1, 3])
def test_load_returns_the_rounded_embedding(tmp_path, embedding, stored, count):
    embedding = embedding[:count]
    kept = store(tmp_path / "a" / "b", stored=stored)
    kept.save(7, VOXELS, embedding)
    loaded = kept.load(7, VOXELS)
    assert_equal(loaded, kept.round(embedding))
    assert torch.equal(loaded[0], embedding[0]) == (stored == "float32")
    assert {tensor.dtype for tensor in loaded} == {torch.float32}
    assert kept.load(6, VOXELS) is None


def test_a_segmenter_with_three_tensors_per_embedding(tmp_path):
    segmenter: Segmenter = ThreeTensors()
    images = np.random.default_rng(0).integers(0, 256, (2, 6, 8, 3), dtype=np.uint8)
    encoded = segmenter.encode([segmenter.prepare(image) for image in images])
    kept = store(tmp_path, segmenter.identity)
    for index, embedding in enumerate(zip(*encoded, strict=True)):
        kept.save(index, images[index, :, :, 0], embedding)
    slices = [kept.load(index, images[index, :, :, 0]) for index in range(2)]
    loaded = tuple(torch.stack(tensors) for tensors in zip(*slices, strict=True))
    assert_equal(loaded, encoded)
    prompts = [[None], [None]]
    assert_equal(
        segmenter.decode(loaded, (6, 8), prompts), segmenter.decode(encoded, (6, 8), prompts)
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"window_hu": (-1400.0, 101.0)},
        {"window_hu": None},
        {"precision": "bfloat16"},
        {"stored": "float16"},
        {"identity": IDENTITY | {"weights": {"sam.pth": "ac" * 32}}},
        {"identity": IDENTITY | {"weights": IDENTITY["weights"] | {"config.json": "ac" * 32}}},
        {"identity": IDENTITY | {"family": "sam"}},
        {"identity": IDENTITY | {"preprocessing": "another"}},
        {"identity": IDENTITY | {"packages": {"torch": "2.7", "numpy": "1.26"}}},
        {"identity": IDENTITY | {"packages": {"torch": "2.6"}}},
    ],
    ids=str,
)
def test_every_part_of_the_signature_counts(tmp_path, embedding, changed):
    store(tmp_path).save(0, VOXELS, embedding)
    assert store(tmp_path, **changed).load(0, VOXELS) is None
    assert store(tmp_path).load(0, VOXELS) is not None


def test_installing_transformers_keeps_the_embeddings_of_segment_anything(
    tmp_path, embedding, monkeypatch
):
    identities = {}
    for installed in (False, True):

        def version(package, installed=installed):
            if package == "transformers" and not installed:
                raise importlib.metadata.PackageNotFoundError(package)
            return "1.0"

        monkeypatch.setattr(importlib.metadata, "version", version)
        identify.cache_clear()
        identities[installed] = [
            identify("compact", None),
            {**IDENTITY, **describe("sam")},
        ]
    identify.cache_clear()
    segment_anything, transformers = zip(*identities.values(), strict=True)
    for number, (before, after) in enumerate((segment_anything, transformers)):
        store(tmp_path / str(number), before).save(0, VOXELS, embedding)
        kept = store(tmp_path / str(number), after).load(0, VOXELS)
        assert (kept is None) == (before is transformers[0])


def test_renamed_weights_are_a_cache_hit(tmp_path, embedding):
    store(tmp_path).save(0, VOXELS, embedding)
    renamed = IDENTITY | {"weights": {"renamed.pth": "ab" * 32}}
    assert store(tmp_path, renamed).load(0, VOXELS) is not None


def test_voxels_their_dtype_and_shape_count(tmp_path, embedding):
    kept = store(tmp_path)
    kept.save(0, VOXELS, embedding)
    other = VOXELS.copy()
    other[1, 1] += 1
    for voxels in (other, VOXELS.view(np.uint16), VOXELS.reshape(4, 3), VOXELS[:2]):
        assert kept.load(0, voxels) is None
    # The order in memory does not count.
    assert kept.load(0, np.asfortranarray(VOXELS)) is not None


def test_a_flipped_byte_or_a_truncation_never_gives_another_embedding(tmp_path, embedding):
    embedding = embedding[:2]
    kept = store(tmp_path)
    kept.save(0, VOXELS, embedding)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    refused = 0
    for place in range(len(content)):
        for changed in (
            content[:place],
            content[:place] + bytes([content[place] ^ 0x55]) + content[place + 1 :],
        ):
            path.write_bytes(changed)
            loaded = kept.load(0, VOXELS)
            refused += loaded is None
            if loaded is not None:
                assert_equal(loaded, embedding)
    # Some bytes, such as the time stamps of the zip format, have no meaning.
    assert refused > 1.7 * len(content)
    path.write_bytes(content)
    assert_equal(kept.load(0, VOXELS), embedding)


def test_a_pickle_in_a_file_is_not_loaded(tmp_path):
    np.savez(tmp_path / "slice_0000.npz", signature=np.array([print], dtype=object))
    assert store(tmp_path).load(0, VOXELS) is None


@pytest.mark.parametrize("step", [(np, "savez"), (os, "replace")], ids=str)
def test_a_kill_at_any_step_leaves_the_old_file(tmp_path, embedding, monkeypatch, step):
    kept = store(tmp_path)
    kept.save(0, VOXELS, embedding)
    (path,) = tmp_path.iterdir()
    half = path.read_bytes()[:500]

    def killed(temporary, *args, **kwargs):
        temporary.write_bytes(half)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(*step, killed)
        for index in (0, 1):
            with pytest.raises(KeyboardInterrupt):
                kept.save(index, VOXELS, tuple(tensor + 1 for tensor in embedding))
    assert list(tmp_path.iterdir()) == [path]
    assert_equal(kept.load(0, VOXELS), embedding)
    assert kept.load(1, VOXELS) is None


def test_an_unwritable_folder_is_named(tmp_path, embedding):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="file"):
        store(tmp_path / "file").save(0, VOXELS, embedding)
