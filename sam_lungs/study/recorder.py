"""What SAM answers about the slices of a volume -> the volume's results."""

import base64
import zlib
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import numpy as np

from sam_lungs.data.volumes import Volume, write_nifti
from sam_lungs.study.journal import Journal
from sam_lungs.study.metrics import surface_agreement
from sam_lungs.study.options import Options
from sam_lungs.study.pipeline import SegmentedSlice
from sam_lungs.study.results import (
    MASKS_NAME,
    RUN_NAME,
    SURFACE_METRICS,
    EmptySlice,
    SliceResult,
    write_results,
)
from sam_lungs.utils.files import remove


class Recorder:
    """Collects the answers to one prompt protocol, in one volume; none is lost to a kill."""

    def __init__(self, folder: Path, image: Volume, options: Options, journal: Journal) -> None:
        """folder: where the results go, once all is recorded.
        journal: where answers are kept, and what earlier sessions of the run have kept there.
        """
        self.done: set[int] = set()
        self._seconds = 0.0
        self._folder = folder
        self._image = image
        self._options = options
        self._journal = journal
        slices = image.array.shape[2]
        self._slices = [SliceResult(index, None, None, None, 0, None) for index in range(slices)]
        self._empty_slices: list[EmptySlice] = []
        # Zeros take no memory until something is written there.
        self._masks = np.zeros(image.array.shape, np.uint8)
        for record in journal.records:
            if "slice" in record or "empty_slice" in record:
                self._take(record)

    @property
    def dice(self) -> float:
        """Mean Dice score of the slices with lung so far; NaN without any."""
        scores = [row.dice for row in self._slices if row.dice is not None]
        return fmean(scores) if scores else np.nan

    def add(self, segmented: SegmentedSlice, number: int, prompted_as: int, seconds: float) -> None:
        """Keep the answer of that number, to the prompts of the slice `prompted_as`.

        seconds: since this session of the run began, or the slices before it.

        Raises `InputError` when it cannot be written.
        """
        index, overlap = segmented.asked.index, segmented.overlaps[number]
        record = {"seconds": seconds}
        if not overlap.true:
            area_mm2 = overlap.predicted * _pixel_mm2(self._image)
            empty = EmptySlice(index, prompted_as, overlap.predicted, area_mm2)
            record["empty_slice"] = asdict(empty)
        else:
            result = SliceResult(
                slice=index,
                jaccard=overlap.jaccard,
                dice=overlap.dice,
                score=segmented.scores[number],
                lung_pixels=overlap.true,
                predicted_pixels=overlap.predicted,
                **measure_surface(segmented, number, self._image, self._options),
            )
            record["slice"] = asdict(result)
            if self._options.save_masks:
                record["mask"] = _pack(segmented.masks[number])
        self._journal.append(record)
        self._take(record)

    def finish(self) -> None:
        """Write all that the options ask for; what an earlier run left beside it goes.

        Raises `InputError` when it cannot be written.
        """
        # Without it, what lies here counts as half-written.
        remove(self._folder / RUN_NAME)
        masks_path = self._folder / MASKS_NAME
        if self._options.save_masks:
            write_nifti(self._masks, self._image.geometry, masks_path)
        else:
            remove(masks_path)
        empty_slices = None
        if self._options.empty_slices == "nearest":
            empty_slices = sorted(self._empty_slices, key=lambda empty: empty.slice)
        begun, session = self._journal.records[:2]
        took = {
            "started": session["session"]["started"],
            "seconds": round(self._seconds, 3),
            "seconds_per_slice": round(self._seconds / len(self.done), 3),
        }
        run = took | begun["run"]
        write_results(self._folder, self._slices, run, self._options.metrics, empty_slices)
        self._journal.discard()

    def _take(self, record: dict) -> None:
        """Take in what `add` has kept."""
        self._seconds += record["seconds"]
        if "empty_slice" in record:
            empty = EmptySlice(**record["empty_slice"])
            self._empty_slices.append(empty)
            self.done.add(empty.slice)
            return
        result = SliceResult(**record["slice"])
        self._slices[result.slice] = result
        self.done.add(result.slice)
        if "mask" in record:
            self._masks[:, :, result.slice] = _unpack(record["mask"], self._masks.shape[:2])


def measure_surface(
    segmented: SegmentedSlice, number: int, image: Volume, options: Options
) -> dict[str, float]:
    """Return those of `SURFACE_METRICS` that are asked for, of the answer of that number."""
    names = [name for name in SURFACE_METRICS if name in options.metrics]
    if not names:
        return {}
    agreement = surface_agreement(
        segmented.masks[number],
        segmented.asked.masks != 0,
        image.geometry.spacing_mm[:2],
        options.tolerance_mm,
    )
    return {name: getattr(agreement, name) for name in names}


def _pack(mask: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.packbits(mask))).decode()


def _unpack(text: str, shape: tuple[int, ...]) -> np.ndarray:
    bits = np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8)
    return np.unpackbits(bits, count=np.prod(shape)).reshape(shape)


def _pixel_mm2(image: Volume) -> float:
    """Area of a pixel; NaN when the spacing is not known."""
    if image.geometry is None:
        return np.nan
    row_mm, column_mm, _ = image.geometry.spacing_mm
    return row_mm * column_mm
