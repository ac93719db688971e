"""The predictions of a model for one volume and prompt protocol -> the volume's results."""

import shutil
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import numpy as np

from sam_lungs.data.nifti import write_nifti
from sam_lungs.data.volume import Volume
from sam_lungs.study import layout
from sam_lungs.study.metrics import SURFACE_METRICS, click_agreement, surface_agreement
from sam_lungs.study.options import Options
from sam_lungs.study.pipeline import SegmentedSlice
from sam_lungs.study.results import EmptySlice, SliceResult, write_volume_tables
from sam_lungs.study.unfinished import UnfinishedRun
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import remove


class Recorder:
    """Collects the results of a volume, and writes each slice to the log of the unfinished run."""

    def __init__(self, folder: Path, image: Volume, options: Options, log: UnfinishedRun) -> None:
        """folder: the results folder. log: of the unfinished run, with the slices done so far."""
        self.done: set[int] = set()  # indices of the recorded slices
        self.debug_folder = log.folder / layout.DEBUG_FOLDER
        self._folder = folder
        self._image = image
        self._options = options
        self._log = log
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._seconds = 0.0
        self._slices: dict[int, SliceResult] = {}
        self._empty_slices: dict[int, EmptySlice] = {}
        # Memory is allocated only when a slice is written.
        self._masks = np.zeros(image.array.shape, np.uint8)
        for line in log.lines:
            mask = log.read_mask(line["index"]) if options.save_masks and "slice" in line else None
            if mask is not None or not options.save_masks or "empty_slice" in line:
                self._take(line, mask)

    @property
    def dice(self) -> float:
        """Mean Dice score of the recorded slices; NaN without any."""
        return fmean(row.dice for row in self._slices.values()) if self._slices else np.nan

    def add(self, segmented: SegmentedSlice, number: int, prompted_as: int, seconds: float) -> None:
        """Record the prediction of a slice for one of its prompts.

        number: index of the prompts in `segmented`. prompted_as: index of the slice that the
            prompts come from. seconds: time for the slice.

        Raises `InputError` when it cannot be written.
        """
        index, overlap = segmented.prompted.index, segmented.overlaps[number]
        line, mask = {"index": index, "seconds": seconds}, None
        if overlap.reference:
            result = SliceResult(
                slice=index,
                jaccard=overlap.jaccard,
                dice=overlap.dice,
                score=segmented.predicted_ious[number],
                lung_pixels=overlap.reference,
                predicted_pixels=overlap.predicted,
                **measure_more(segmented, number, self._image, self._options),
            )
            line["slice"] = asdict(result)
            mask = segmented.masks[number] if self._options.save_masks else None
        else:
            area_mm2 = overlap.predicted * _pixel_mm2(self._image)
            line["empty_slice"] = asdict(
                EmptySlice(index, prompted_as, overlap.predicted, area_mm2)
            )
        self._log.append(line, mask)
        self._take(line, mask)

    def finish(self) -> None:
        """Write the results, run.json last, and remove the log.

        Raises `InputError` when they cannot be written.
        """
        folder, options = self._folder, self._options
        # Removed first: without run.json the folder is not finished.
        remove(folder / layout.RUN_NAME)
        remove(folder / layout.MASKS_NAME)
        if options.save_masks:
            write_nifti(self._masks, self._image.geometry, folder / layout.MASKS_NAME)
        slices = self._image.array.shape[2]
        empty_slices = None
        if options.empty_slices == "nearest":
            empty_slices = [self._empty_slices[index] for index in sorted(self._empty_slices)]
        write_volume_tables(
            folder,
            [self._slices.get(index, SliceResult(index)) for index in range(slices)],
            options.metrics,
            empty_slices,
        )
        self._move_pictures()
        names = (
            layout.RAW_DATA_NAME,
            layout.SUMMARY_NAME,
            layout.EMPTY_SLICES_NAME,
            layout.MASKS_NAME,
        )
        pictures = sorted((folder / layout.DEBUG_FOLDER).glob("*"))
        record = replace(
            self._log.record,
            started=self._started,
            seconds=round(self._seconds, 3),
            seconds_per_slice=round(self._seconds / len(self.done), 3),
        )
        record.write(
            folder,
            [name for name in names if (folder / name).exists()]
            + [path.relative_to(folder).as_posix() for path in pictures],
        )
        self._log.discard()

    def _move_pictures(self) -> None:
        """Replace the pictures of an earlier run by the new ones."""
        target = self._folder / layout.DEBUG_FOLDER
        try:
            # Missing if an earlier process was killed after the move.
            if self.debug_folder.exists() or not self._options.debug:
                shutil.rmtree(target, ignore_errors=True)
            if self.debug_folder.exists():
                self.debug_folder.rename(target)
        except OSError as error:
            raise InputError(
                f"{target}: cannot be written ({error.strerror}); choose another folder"
            ) from error

    def _take(self, line: dict, mask: np.ndarray | None) -> None:
        self._seconds += line["seconds"]
        index = line["index"]
        self.done.add(index)
        if "empty_slice" in line:
            self._empty_slices[index] = EmptySlice(**line["empty_slice"])
            return
        self._slices[index] = SliceResult(**line["slice"])
        if mask is not None:
            self._masks[:, :, index] = mask


def measure_more(
    segmented: SegmentedSlice, number: int, image: Volume, options: Options
) -> dict[str, float]:
    """Return the requested surface and click metrics of the prediction for prompts `number`."""
    measured = {}
    if names := [name for name in SURFACE_METRICS if name in options.metrics]:
        agreement = surface_agreement(
            segmented.masks[number],
            segmented.prompted.masks != 0,
            image.geometry.spacing_mm[:2],
            options.tolerance_mm,
        )
        measured |= {name: getattr(agreement, name) for name in names}
    if options.one_click:
        measured |= click_agreement(segmented.click_masks[number], segmented.prompted.masks)
    return measured


def _pixel_mm2(image: Volume) -> float:
    """Return the area of a pixel; NaN when the spacing is unknown."""
    if image.geometry is None:
        return np.nan
    row_mm, column_mm, _ = image.geometry.spacing_mm
    return row_mm * column_mm
