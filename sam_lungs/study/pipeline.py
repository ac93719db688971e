"""Prompted slices -> masks and their scores, with reading and every device at work at once."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from queue import SimpleQueue

import numpy as np
import torch

from sam_lungs.prompts.rules import Prompts
from sam_lungs.segmenters.embeddings import EmbeddingStore
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.study.metrics import Overlap
from sam_lungs.utils.errors import InputError, is_out_of_memory
from sam_lungs.utils.signals import Stop

READERS = 8


@dataclass(frozen=True, eq=False)
class PromptedSlice:
    """What is asked about a slice of a volume.

    voxels, masks: (rows, columns), as stored, labels; image_rgb: (rows, columns, 3) uint8, what SAM
    sees; prompts: one for each protocol.
    """

    index: int
    voxels: np.ndarray
    masks: np.ndarray
    image_rgb: np.ndarray
    prompts: list[Prompts]


@dataclass(frozen=True, eq=False)
class SegmentedSlice:
    """What SAM answers: for each prompt, how its mask overlaps the lungs, and its score.

    masks: (prompts, rows, columns) bool; `None` unless the pipeline keeps them.
    """

    asked: PromptedSlice
    overlaps: list[Overlap]
    scores: list[float]
    masks: np.ndarray | None


class Pipeline:
    """Segments the slices of volumes in batches, on all devices.

    A slice's results do not depend on the batch or the device that it meets but for the last digits
    of float32, on a CPU not even for those. Memory does not grow with the number of slices.
    """

    def __init__(
        self,
        segmenters: list[SamSegmenter],
        batch_size: int | None = None,
        keep_masks: bool = False,
    ) -> None:
        """segmenters: one for each device; batch_size: in slices, `None` lets the devices say."""
        self._batch_size = batch_size or min(segmenter.batch_size() for segmenter in segmenters)
        self._keep_masks = keep_masks
        self._segmenters = segmenters
        # A GPU computes one batch while the numbers of another come back and a third is sent.
        self._workers = [
            segmenter
            for segmenter in segmenters
            for _ in range(2 if segmenter.device.type == "cuda" else 1)
        ]

    def run(
        self,
        read: Callable[[int], PromptedSlice],
        indices: Iterable[int],
        store: EmbeddingStore | None = None,
        stop: Stop | None = None,
    ) -> Iterator[SegmentedSlice]:
        """Yield the slices segmented, in order.

        read: gives the slice of an index; called from several threads. store: where embeddings are
        looked up and kept. stop: when it is true, only what is in hand is still segmented.

        Raises `InputError` when a device has too little memory for one slice, or an embedding
        cannot be kept; and what `read` raises.
        """
        free = SimpleQueue()
        for segmenter in self._workers:
            free.put(segmenter)
        readers = ThreadPoolExecutor(READERS)
        workers = ThreadPoolExecutor(len(self._workers))

        def prepare(index):
            prompted = read(index)
            kept = store and store.load(index, prompted.voxels)
            # Of all segmenters resizing is the same.
            picture = None if kept is not None else self._segmenters[0].resize(prompted.image_rgb)
            return prompted, kept, picture

        def segment(slices: list[Future]):
            if stop:
                return []
            segmenter = free.get()
            try:
                return self._segment(segmenter, [future.result() for future in slices], store)
            finally:
                free.put(segmenter)

        try:
            indices = iter(indices)
            under_way = deque()
            while not stop and (batch := list(islice(indices, self._batch_size))):
                slices = [readers.submit(prepare, index) for index in batch]
                under_way.append(workers.submit(segment, slices))
                if len(under_way) > 2 * len(self._workers):
                    yield from under_way.popleft().result()
            while under_way:
                yield from under_way.popleft().result()
        finally:
            for executor in (workers, readers):
                executor.shutdown(cancel_futures=True)

    def _segment(self, segmenter, slices, store) -> list[SegmentedSlice]:
        """Segment a batch, or when memory is short its halves; batches to come are as small."""
        try:
            return self._segment_batch(segmenter, slices, store)
        except torch.OutOfMemoryError:
            if len(slices) == 1:
                raise _too_little_memory(segmenter) from None
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise _too_little_memory(segmenter) from error
        # Out of the `except`, whose traceback holds on to the memory.
        torch.cuda.empty_cache()
        half = -(-len(slices) // 2)
        self._batch_size = min(self._batch_size, half)
        return [
            segmented
            for part in (slices[:half], slices[half:])
            for segmented in self._segment(segmenter, part, store)
        ]

    def _segment_batch(self, segmenter, slices, store) -> list[SegmentedSlice]:
        prompted = [asked for asked, _, _ in slices]
        size_rc = prompted[0].masks.shape
        embeddings = _embed(segmenter, slices, store)
        masks, scores = segmenter.decode(embeddings, size_rc, [asked.prompts for asked in prompted])
        true = torch.from_numpy(np.stack([asked.masks != 0 for asked in prompted]))
        true = true.to(segmenter.device)[:, None].expand_as(masks)
        areas = torch.stack([mask.sum((-2, -1)) for mask in (masks, true, masks & true)], dim=-1)
        areas, scores = areas.tolist(), scores.tolist()
        kept = masks.cpu().numpy() if self._keep_masks else [None] * len(slices)
        return [
            SegmentedSlice(asked, [Overlap(*of_prompt) for of_prompt in of_slice], *answer)
            for asked, of_slice, *answer in zip(prompted, areas, scores, kept, strict=True)
        ]


def _too_little_memory(segmenter: SamSegmenter) -> InputError:
    return InputError(
        f"{segmenter.device}: too little memory for one slice; use a smaller --model,"
        " --precision bfloat16, fewer --prompts, or another --device"
    )


def _embed(segmenter, slices, store) -> torch.Tensor:
    """Return the embeddings of a batch, those that were kept and the others new, and keep these."""
    embeddings = [kept for _, kept, _ in slices]
    missing = [place for place, kept in enumerate(embeddings) if kept is None]
    if missing:
        new = segmenter.encode([slices[place][2] for place in missing])
        if store:
            new = store.round(new)
        for place, embedding in zip(missing, new, strict=True):
            embeddings[place] = embedding
            if store:
                asked, _, _ = slices[place]
                store.save(asked.index, asked.voxels, embedding)
    return torch.stack([embedding.to(segmenter.device) for embedding in embeddings])
