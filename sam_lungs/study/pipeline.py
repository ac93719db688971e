"""Prompted slices -> masks; the next slices are read while the devices compute."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import cycle, islice
from statistics import fmean
from typing import TypeVar

import numpy as np
import torch

from sam_lungs.prompts.protocols import Prompts
from sam_lungs.segmenters.base import Decoded, NotFiniteError, Segmenter
from sam_lungs.segmenters.embeddings import EmbeddingStore
from sam_lungs.study.metrics import Overlap
from sam_lungs.utils.errors import InputError, is_out_of_memory

T = TypeVar("T")
R = TypeVar("R")

READERS = 8


@dataclass(frozen=True, eq=False)
class PromptedSlice:
    """A slice of a volume and its prompts.

    voxels, masks: (rows, columns), values and reference labels as stored, 0 without reference
    masks; image_rgb: (rows, columns, 3) uint8, the model's input; prompts: for each protocol, those
    whose masks are united; interactions: for each protocol, how many were drawn in this slice, see
    `SlicePrompts`, or None where that is not known. window_hu: lower and upper limit of the window,
    None without one.
    """

    index: int
    voxels: np.ndarray
    masks: np.ndarray
    image_rgb: np.ndarray
    prompts: list[list[Prompts]]
    interactions: list[int | None]
    window_hu: tuple[float, float] | None = None

    @property
    def in_window(self) -> np.ndarray | None:
        """The place of each voxel in the window, see `Segmenter.prepare`."""
        if self.window_hu is None:
            return None
        low, high = self.window_hu
        return (self.voxels.astype(np.float64) - low) / (high - low)


@dataclass(frozen=True, eq=False)
class SegmentedSlice:
    """A slice and the model's predictions, one for each protocol.

    overlaps: of the predicted masks with the reference mask, all labels together.
    predicted_ious: the model's own estimates of the Jaccard index; the mean of united masks; NaN
        from a baseline.
    masks: (protocols, rows, columns) bool; None unless the pipeline keeps them.
    click_masks: for each protocol (prompts, 3, rows, columns) bool, the three masks of each prompt
        before they are united; None unless the pipeline was asked for them.
    """

    prompted: PromptedSlice
    overlaps: list[Overlap]
    predicted_ious: list[float]
    masks: np.ndarray | None
    click_masks: list[np.ndarray] | None


class Pipeline:
    """Segments slices in batches, on all devices.

    On a CPU the results of a slice do not depend on its batch or device. On a GPU only the last
    digits do. Memory does not grow with the number of slices.
    """

    def __init__(
        self,
        segmenters: Sequence[Segmenter],
        batch_size: int | None = None,
        keep_masks: bool = False,
        one_click: bool = False,
        by_slice: bool = False,
    ) -> None:
        """segmenters: one per device. batch_size: in slices; None for `Segmenter.batch_size`.

        one_click: also predict three masks for each prompt. by_slice: decode with
        `Segmenter.decode_slice`, which gives other last digits than `Segmenter.decode`.
        """
        self._segmenters = segmenters
        self._batch_size = batch_size or min(segmenter.batch_size() for segmenter in segmenters)
        self._keep_masks = keep_masks
        self._one_click = one_click
        self._by_slice = by_slice

    def run(
        self,
        read: Callable[[int], PromptedSlice],
        indices: Iterable[int],
        store: EmbeddingStore | None = None,
    ) -> Iterator[SegmentedSlice]:
        """Yield the segmented slices, in order.

        read: returns the slice of an index; called from several threads.
        store: where embeddings are loaded and saved.

        Raises `InputError` when a device has too little memory for one slice or an embedding cannot
        be written, `NotFiniteError` at the first slice where the model computes NaN or infinity,
        and raises the errors of `read`.
        """

        def prepare(index: int) -> tuple:
            prompted = read(index)
            kept = store and store.load(index, prompted.voxels)
            picture = None
            if kept is None:
                picture = self._segmenters[0].prepare(prompted.image_rgb, prompted.in_window)
            return prompted, kept, picture

        def segment(work: tuple[Segmenter, list[tuple]]) -> list[SegmentedSlice]:
            segmenter, slices = work
            return self._segment(segmenter, slices, store)

        # A GPU computes one batch while the results of another are copied: 10 % faster.
        at_once = sum(2 if each.device.type == "cuda" else 1 for each in self._segmenters)
        ahead = max(READERS, self._batch_size)
        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(at_once) as workers:
            try:
                batches = self._batches(map_ahead(readers, prepare, indices, ahead))
                work = zip(cycle(self._segmenters), batches, strict=False)
                for segmented in map_ahead(workers, segment, work, at_once):
                    yield from segmented
            finally:
                for executor in (workers, readers):
                    executor.shutdown(cancel_futures=True)

    def _batches(self, slices: Iterator[T]) -> Iterator[list[T]]:
        # `_segment` may decrease the size.
        while batch := list(islice(slices, self._batch_size)):
            yield batch

    def _segment(
        self, segmenter: Segmenter, slices: list[tuple], store: EmbeddingStore | None
    ) -> list[SegmentedSlice]:
        """Segment a batch; when GPU memory is too small, halve this batch and all later ones."""
        try:
            return self._segment_batch(segmenter, slices, store)
        except NotFiniteError:
            # Once more, to name the slice.
            segmented = []
            for each in slices:
                with naming(f"slice {each[0].index}"):
                    segmented += self._segment_batch(segmenter, [each], store)
            return segmented
        except torch.OutOfMemoryError:
            if len(slices) == 1:
                raise _too_little_memory(segmenter) from None
        except (MemoryError, RuntimeError) as error:
            if not is_out_of_memory(error):
                raise
            raise _too_little_memory(segmenter) from error
        # Not in the `except` clause: its traceback holds references to GPU memory.
        torch.cuda.empty_cache()
        half = -(-len(slices) // 2)
        self._batch_size = min(self._batch_size, half)
        return [
            segmented
            for part in (slices[:half], slices[half:])
            for segmented in self._segment(segmenter, part, store)
        ]

    def _segment_batch(
        self, segmenter: Segmenter, slices: list[tuple], store: EmbeddingStore | None
    ) -> list[SegmentedSlice]:
        prompted = [each for each, _, _ in slices]
        size_rc = prompted[0].masks.shape
        embeddings = embed(segmenter, slices, store)
        decode = partial(_decode_by_slice, segmenter) if self._by_slice else segmenter.decode
        masks, predicted_ious, click_masks = _decode(
            decode, embeddings, size_rc, [each.prompts for each in prompted], self._one_click
        )
        reference = torch.from_numpy(np.stack([each.masks != 0 for each in prompted]))
        reference = reference.to(segmenter.device)[:, None].expand_as(masks)
        areas = [mask.sum((-2, -1)) for mask in (masks, reference, masks & reference)]
        areas = torch.stack(areas, dim=-1).tolist()  # (slices, prompts, 3)
        kept = masks.cpu().numpy() if self._keep_masks else [None] * len(slices)
        return [
            SegmentedSlice(each, [Overlap(*area) for area in of_slice], ious, mask, three)
            for each, of_slice, ious, mask, three in zip(
                prompted, areas, predicted_ious, kept, click_masks, strict=True
            )
        ]


def _decode(
    decode: Callable[..., Decoded],
    embeddings: tuple[torch.Tensor, ...],
    size_rc: tuple[int, int],
    prompts: list[list[list[Prompts]]],
    one_click: bool,
) -> tuple[torch.Tensor, list[list[float]], list[list[np.ndarray] | None]]:
    """Return united masks, (slices, protocols, rows, columns) bool, and their predicted IoUs.

    The third result is `SegmentedSlice.click_masks` of each slice.

    decode: see `Segmenter.decode`.
    prompts: for each slice and protocol those whose masks are united; their predicted IoU is the
        mean.
    """
    counts = [[len(united) for united in of_slice] for of_slice in prompts]
    most = max(map(max, counts))
    # The last are repeated, because all slices must have the same number.
    repeated = [
        [united[min(number, len(united) - 1)] for united in of_slice for number in range(most)]
        for of_slice in prompts
    ]
    decoded = decode(embeddings, size_rc, repeated)
    masks, ious = (tensor.unflatten(1, (-1, most)) for tensor in decoded[:2])
    predicted_ious = [
        [fmean(united[:count]) for united, count in zip(*of_slice, strict=True)]
        for of_slice in zip(ious.tolist(), counts, strict=True)
    ]
    click_masks = [None] * len(prompts)
    if one_click:
        decoded = decode(embeddings, size_rc, repeated, multimask=True)
        click_masks = [
            [three[:count] for three, count in zip(*of_slice, strict=True)]
            for of_slice in zip(
                decoded.masks.unflatten(1, (-1, most)).cpu().numpy(), counts, strict=True
            )
        ]
    return masks.any(2), predicted_ious, click_masks


def _decode_by_slice(
    segmenter: Segmenter,
    embeddings: tuple[torch.Tensor, ...],
    size_rc: tuple[int, int],
    prompts: Sequence[Sequence[Prompts]],
) -> Decoded:
    """Decode slice by slice; see `Segmenter.decode`."""
    decoded = [
        segmenter.decode_slice(tuple(tensor[[number]] for tensor in embeddings), size_rc, of_slice)
        for number, of_slice in enumerate(prompts)
    ]
    return Decoded(*map(torch.stack, zip(*decoded, strict=True)))


def map_ahead(
    executor: Executor, function: Callable[[T], R], items: Iterable[T], ahead: int
) -> Iterator[R]:
    """Yield `function` of each item in order, computed by the executor up to `ahead` in advance."""
    pending = deque()
    for item in items:
        pending.append(executor.submit(function, item))
        if len(pending) > ahead:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()


@contextmanager
def naming(where: object) -> Iterator[None]:
    """Add to a `NotFiniteError` where it happened: a slice, or the file of a case."""
    try:
        yield
    except NotFiniteError as error:
        raise NotFiniteError(f"{where}: {error}") from None


def _too_little_memory(segmenter: Segmenter) -> InputError:
    return InputError(
        f"{segmenter.device}: too little memory for one slice; use a smaller --model,"
        " --precision bfloat16, fewer --prompts, or another --device"
    )


def embed(
    segmenter: Segmenter, slices: list[tuple], store: EmbeddingStore | None
) -> tuple[torch.Tensor, ...]:
    """Return the embeddings of a batch; encode and save those that are not in the store."""
    embeddings = [kept for _, kept, _ in slices]
    missing = [place for place, kept in enumerate(embeddings) if kept is None]
    if missing:
        new = segmenter.encode([slices[place][2] for place in missing])
        if store:
            new = store.round(new)
        for place, embedding in zip(missing, zip(*new, strict=True), strict=True):
            embeddings[place] = embedding
            if store:
                prompted = slices[place][0]
                store.save(prompted.index, prompted.voxels, embedding)
    return tuple(
        torch.stack([tensor.to(segmenter.device) for tensor in tensors])
        for tensors in zip(*embeddings, strict=True)
    )
