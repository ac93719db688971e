"""The slices of phantoms that the compact SAM learns from, kept in files; made on all cores."""

import os
import signal
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing
from multiprocessing import connection, get_context, parent_process
from pathlib import Path
from threading import Thread

import numpy as np

from sam_lungs.segmenters.sam_compact import IMAGE_SIZE
from sam_lungs.synthetic.phantom import CODE as PHANTOM_CODE
from sam_lungs.synthetic.training_data import make_slice
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import read_signed, write_signed
from sam_lungs.utils.progress import Progress
from sam_lungs.utils.provenance import code_sha256
from sam_lungs.utils.signals import Stop, Stopped

# The modules that decide the slices of a pool.
CODE = (*PHANTOM_CODE, "data/windowing", "synthetic/training_data")
SHARD_SLICES = 100
CHUNK_SLICES = 4  # what a process makes at once
SLICE_BYTES = 2 * IMAGE_SIZE**2


class SlicePool(Sequence[np.ndarray]):
    """Training slices in files of SHARD_SLICES each, which `make_pool` makes.

    `pool[number]` is read when asked for: (2, IMAGE_SIZE, IMAGE_SIZE) uint8, what `make_slice`
    gives. Raises `InputError` when the file is no longer there.
    """

    def __init__(self, folder: Path, slices: int) -> None:
        self._slices = range(slices)
        firsts = range(0, slices, SHARD_SLICES)
        self.shards = [self._slices[first : first + SHARD_SLICES] for first in firsts]
        self.paths = [folder / f"{shard[0]}-{shard[-1]}.slices" for shard in self.shards]

    def __len__(self) -> int:
        return len(self._slices)

    def __getitem__(self, number: int) -> np.ndarray:
        shard, row = divmod(self._slices[number], SHARD_SLICES)
        try:
            # Not a memory map, which dies of what is an error here.
            planes = np.fromfile(self.paths[shard], np.uint8, SLICE_BYTES, offset=row * SLICE_BYTES)
            return planes.reshape(2, IMAGE_SIZE, IMAGE_SIZE)
        except (OSError, ValueError) as error:
            raise InputError(
                f"{self.paths[shard]}: was removed or damaged meanwhile; run it again"
            ) from error


def make_pool(folder: Path, seed: int, slices: int, stop: Stop) -> SlicePool:
    """Make files of training slices in a folder: those that are missing, damaged, or outdated.

    Raises `InputError` when they cannot be written, and `Stopped` when asked to stop.
    """
    pool = SlicePool(folder / f"slices_seed_{seed}", slices)
    code = code_sha256(CODE)
    labels = [f"{code} {seed} {shard} {IMAGE_SIZE}" for shard in pool.shards]
    shards = zip(pool.paths, pool.shards, labels, strict=True)
    missing = [shard for shard in shards if read_signed(shard[0], shard[2]) is None]
    numbers = [number for _, shard, _ in missing for number in shard]
    try:
        with (
            Progress("training slices", slices, slices - len(numbers)) as progress,
            closing(_make_slices(seed, numbers)) as made,
        ):
            for path, shard, label in missing:
                planes = []
                for _ in shard:
                    if stop:
                        raise _stopped(stop)
                    planes.append(next(made))
                    progress.update()
                write_signed(path, np.array(planes).tobytes(), label)
    except BrokenProcessPool as error:
        if stop:  # and so was the worker: both were sent the signal
            raise _stopped(stop) from None
        raise InputError(
            "a process that makes slices was killed, perhaps for its memory; run it again to go on"
        ) from error
    return pool


def _stopped(stop: Stop) -> Stopped:
    return Stopped(stop.number, "the slices that are on the disk stay; run it again to go on")


def _make_slices(seed: int, numbers: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Make slices on all cores; see `make_slice`. Raises `BrokenProcessPool` as executors do."""
    # Not forked: a fork of a process in which torch has threads can hang.
    executor = ProcessPoolExecutor(mp_context=get_context("spawn"), initializer=_end_with_parent)
    chunks = [
        numbers[first : first + CHUNK_SLICES] for first in range(0, len(numbers), CHUNK_SLICES)
    ]
    ahead = deque()
    # So few are ahead that none needs to be cancelled: Python may trip over that when, besides, a
    # worker was killed.
    with executor:
        for chunk in chunks:
            # Ctrl-C is for this process only: what a submission starts inherits the mask.
            before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
            try:
                ahead.append(executor.submit(_make_chunk, seed, chunk))
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
            if len(ahead) > 2 * os.cpu_count():
                yield from ahead.popleft().result()
        while ahead:
            yield from ahead.popleft().result()


def _make_chunk(seed: int, numbers: Sequence[int]) -> list[tuple[np.ndarray, np.ndarray]]:
    return [make_slice(seed, number) for number in numbers]


def _end_with_parent() -> None:
    """Let a worker end when its parent is killed; executors' workers would wait for ever."""

    def watch() -> None:
        connection.wait([parent_process().sentinel])
        os._exit(1)

    Thread(target=watch, daemon=True).start()
