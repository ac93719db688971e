import threading
import time
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
import torch
from conftest import chest, tiny_sam

from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.protocols import PROTOCOLS, PromptProtocol, Prompts
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.segmenters.base import segment
from sam_lungs.segmenters.embeddings import EmbeddingStore
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.study.metrics import overlap
from sam_lungs.study.pipeline import Pipeline, PromptedSlice
from sam_lungs.utils.errors import InputError

CPU = torch.device("cpu")
SLICES = 12
IMAGE, MASKS = chest(48, 40, SLICES)
MASKS[:, :, 5] = np.where(MASKS[:, :, 5] == 1, 1, 0)  # one lung only: fewer points


def segmenters(count: int = 1) -> list[SamSegmenter]:
    return [SamSegmenter(tiny_sam(), CPU) for _ in range(count)]


def apart(masks: np.ndarray, protocol: PromptProtocol) -> list[Prompts]:
    """The prompts of each label, as if there were no others."""
    labels = np.unique(masks[masks > 0])
    return [make_prompts(np.where(masks == label, masks, 0), protocol) for label in labels]


def read(index: int, protocols=(PROTOCOLS["paper"],)) -> PromptedSlice:
    voxels, masks = IMAGE[:, :, index], MASKS[:, :, index]
    prompts = [[make_prompts(masks, protocol)] for protocol in protocols]
    rgb = slice_to_rgb(voxels, LUNG_WINDOW)
    return PromptedSlice(index, voxels, masks, rgb, prompts, [0] * len(prompts))


@pytest.fixture(scope="module")
def one_by_one():
    """Every slice with lung, segmented alone."""
    (segmenter,) = segmenters()
    return {
        index: segment(segmenter, read(index).image_rgb, read(index).prompts[0][0])
        for index in range(1, SLICES)
    }


def assert_same(segmented, one_by_one) -> None:
    assert [each.prompted.index for each in segmented] == list(range(1, SLICES))
    for each in segmented:
        alone = one_by_one[each.prompted.index]
        assert each.predicted_ious == [alone.predicted_iou]
        reference = each.prompted.masks > 0
        assert each.overlaps == [overlap(alone.mask, reference)]
        np.testing.assert_array_equal(each.masks[0], alone.mask)


@pytest.mark.parametrize("devices", [1, 2, 3])
@pytest.mark.parametrize("batch_size", [1, 2, 3, 4, 50, None])
def test_results_and_order_do_not_depend_on_batches_and_devices(one_by_one, batch_size, devices):
    pipeline = Pipeline(segmenters(devices), batch_size, keep_masks=True)
    assert_same(list(pipeline.run(read, range(1, SLICES))), one_by_one)


def test_several_devices_work_at_the_same_time(monkeypatch):
    together = threading.Barrier(3, timeout=20)
    encode = SamSegmenter.encode

    def wait_for_the_others(*args):
        together.wait()
        return encode(*args)

    monkeypatch.setattr(SamSegmenter, "encode", wait_for_the_others)
    assert len(list(Pipeline(segmenters(3), 1).run(read, range(1, 7)))) == 6


def test_masks_are_kept_only_on_request():
    for segmented in Pipeline(segmenters(), 4).run(read, range(1, SLICES)):
        assert segmented.masks is None


@pytest.mark.parametrize("batch_size", [1, 4])
def test_masks_of_objects_are_united(batch_size):
    """Slice 5 has one object, the others have two."""

    def read_apart(index: int) -> PromptedSlice:
        protocols = (PROTOCOLS["box_only"], PROTOCOLS["points"])
        prompts = [apart(MASKS[:, :, index], each) for each in protocols]
        return replace(read(index), prompts=prompts)

    (segmenter,) = segmenters()
    pipeline = Pipeline([segmenter], batch_size, keep_masks=True)
    for each in pipeline.run(read_apart, range(4, 8)):
        for number, united in enumerate(each.prompted.prompts):
            alone = [segment(segmenter, each.prompted.image_rgb, prompts) for prompts in united]
            assert len(alone) == (1 if each.prompted.index == 5 else 2)
            mask = np.any([one.mask for one in alone], axis=0)
            np.testing.assert_array_equal(each.masks[number], mask)
            assert each.overlaps[number] == overlap(mask, each.prompted.masks > 0)
            assert each.predicted_ious[number] == fmean(one.predicted_iou for one in alone)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_the_three_masks_of_a_click_are_those_that_the_segmenter_decodes(batch_size):
    """Slice 5 has one object, the others have two."""

    def read_apart(index: int) -> PromptedSlice:
        prompts = apart(MASKS[:, :, index], PROTOCOLS["points"])
        return replace(read(index), prompts=[prompts])

    (segmenter,) = segmenters()
    asked, plain = (
        list(Pipeline([segmenter], batch_size, True, one_click).run(read_apart, range(4, 8)))
        for one_click in (True, False)
    )
    for each, without in zip(asked, plain, strict=True):
        embedding = segmenter.encode([segmenter.prepare(each.prompted.image_rgb)])
        (click_masks,), (prompts,) = each.click_masks, each.prompted.prompts
        assert len(click_masks) == (1 if each.prompted.index == 5 else 2)
        for three, prompt in zip(click_masks, prompts, strict=True):
            alone = segmenter.decode(embedding, (48, 40), [[prompt]], multimask=True)
            np.testing.assert_array_equal(three, alone.masks[0, 0].numpy())
        # The predicted mask does not depend on them.
        assert without.click_masks is None
        assert each.overlaps == without.overlaps
        np.testing.assert_array_equal(each.masks, without.masks)


def test_several_protocols_give_the_same_results_as_each_alone():
    together = Pipeline(segmenters(), 4, keep_masks=True).run(
        lambda index: read(index, PROTOCOLS.values()), range(1, SLICES)
    )
    together = list(together)
    for place, protocol in enumerate(PROTOCOLS.values()):
        alone = Pipeline(segmenters(), 4, keep_masks=True).run(
            lambda index, protocol=protocol: read(index, [protocol]), range(1, SLICES)
        )
        for one, many in zip(alone, together, strict=True):
            assert one.overlaps == [many.overlaps[place]]
            assert one.predicted_ious == [many.predicted_ious[place]]
            np.testing.assert_array_equal(one.masks[0], many.masks[place])


def limit_memory(slices: int, monkeypatch) -> list[int]:
    """Limit the device's memory to a number of slices; return the sizes of all batches."""
    given = []
    encode = SamSegmenter.encode

    def encode_if_it_fits(self, pictures):
        given.append(len(pictures))
        if len(pictures) > slices:
            raise torch.OutOfMemoryError
        return encode(self, pictures)

    monkeypatch.setattr(SamSegmenter, "encode", encode_if_it_fits)
    return given


def test_a_batch_too_large_for_the_memory_is_halved_and_stays_small(one_by_one, monkeypatch):
    given = limit_memory(2, monkeypatch)
    pipeline = Pipeline(segmenters(), 8, keep_masks=True)
    assert_same(list(pipeline.run(read, range(1, SLICES))), one_by_one)
    before = len(given)
    list(pipeline.run(read, range(1, SLICES)))
    assert max(given[before:]) == 2


def test_too_little_memory_for_one_slice_is_an_input_error(monkeypatch):
    limit_memory(0, monkeypatch)
    with pytest.raises(InputError, match="too little memory"):
        list(Pipeline(segmenters(), 4).run(read, range(1, SLICES)))


def test_slices_are_read_ahead_but_not_all(monkeypatch):
    seen = []

    def note(index):
        seen.append(index)
        return read(index)

    slices = Pipeline(segmenters(), 2).run(note, [1 + number % 11 for number in range(200)])
    next(slices)
    time.sleep(0.5)
    assert 2 < len(seen) < 20
    slices.close()


def test_an_error_in_a_thread_is_raised():
    def broken(index):
        raise InputError("slice 3: broken")

    with pytest.raises(InputError, match="slice 3"):
        list(Pipeline(segmenters(), 2).run(broken, range(1, 4)))


def store_in(folder, stored_precision: str = "float32") -> EmbeddingStore:
    identity = {"family": "sam", "weights": {}, "preprocessing": "", "packages": {}}
    return EmbeddingStore(folder, identity, None, "float32", stored_precision)


@pytest.fixture
def encoded(monkeypatch) -> list[int]:
    """The number of slices in each call of the encoder."""
    return limit_memory(100, monkeypatch)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_saved_embeddings_give_the_same_results_without_the_encoder(tmp_path, encoded, dtype):
    store = store_in(tmp_path, dtype)
    first = list(Pipeline(segmenters(), 4).run(read, range(1, SLICES), store))
    assert sum(encoded) == SLICES - 1
    second = list(Pipeline(segmenters(), 3).run(read, range(1, SLICES), store))
    assert sum(encoded) == SLICES - 1
    for one, other in zip(first, second, strict=True):
        assert one.overlaps == other.overlaps
        assert one.predicted_ious == other.predicted_ious


def test_an_interrupted_run_keeps_its_embeddings(tmp_path, encoded, one_by_one):
    store = store_in(tmp_path)
    stopped = Pipeline(segmenters(), 2).run(read, range(1, SLICES), store)
    next(stopped)
    stopped.close()
    kept = len(list(tmp_path.iterdir()))
    assert 0 < kept < SLICES - 1
    encoded.clear()
    again = list(Pipeline(segmenters(), 4, keep_masks=True).run(read, range(1, SLICES), store))
    assert sum(encoded) == SLICES - 1 - kept
    assert_same(again, one_by_one)


def test_a_damaged_embedding_is_computed_again(tmp_path, encoded, one_by_one):
    store = store_in(tmp_path)
    list(Pipeline(segmenters(), 4).run(read, range(1, SLICES), store))
    encoded.clear()
    paths = sorted(tmp_path.iterdir())
    whole = paths[2].read_bytes()
    paths[2].write_bytes(whole[:-100] + whole[-99:])
    again = list(Pipeline(segmenters(), 4, keep_masks=True).run(read, range(1, SLICES), store))
    assert encoded == [1]
    assert_same(again, one_by_one)
    assert store.load(3, IMAGE[:, :, 3]) is not None


def test_too_little_memory_on_a_cpu_is_an_input_error(monkeypatch):
    def short(*_):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory"
        )

    monkeypatch.setattr(SamSegmenter, "encode", short)
    with pytest.raises(InputError, match="too little memory"):
        list(Pipeline(segmenters(), 2).run(read, range(1, SLICES)))
