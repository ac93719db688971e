"""The predictions of a model for one volume and prompt protocol -> the volume's results."""

import shutil
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

import numpy as np
import pandas as pd

from sam_lungs.data.case import Case
from sam_lungs.data.nifti import write_nifti
from sam_lungs.data.volume import Volume
from sam_lungs.study import layout
from sam_lungs.study.measure import measure_slice, measure_volume
from sam_lungs.study.measurement_options import METRICS_3D
from sam_lungs.study.options import Options
from sam_lungs.study.pipeline import SegmentedSlice
from sam_lungs.study.results import EmptySlice, SliceResult, slices_table, write_volume_tables
from sam_lungs.study.unfinished import UnfinishedRun
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import remove


class Recorder:
    """Collects the results of a volume, and writes each slice to the log of the unfinished run."""

    def __init__(self, folder: Path, case: Case, options: Options, log: UnfinishedRun) -> None:
        """folder: the results folder. log: of the unfinished run, with the slices done so far."""
        self.done: set[int] = set()  # indices of the recorded slices
        self.debug_folder = log.folder / layout.DEBUG_FOLDER
        self._folder = folder
        self._case = case
        self._options = options
        self._keeps_masks = options.save_masks or options.measures(*METRICS_3D)
        self._log = log
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._seconds = 0.0
        self._slices: dict[int, SliceResult] = {}
        self._empty_slices: dict[int, EmptySlice] = {}
        # Memory is allocated only when a slice is written.
        self._masks = np.zeros(case.image.array.shape, np.uint8)
        for line in log.lines:
            mask = log.read_mask(line["index"]) if self._keeps_masks else None
            if mask is not None or not self._keeps_masks:
                self._take(line, mask)

    @property
    def dice(self) -> float:
        """Mean Dice score of the recorded slices with objects; NaN without any."""
        known = [row.dice for row in self._slices.values() if row.dice is not None]
        return fmean(known) if known else np.nan

    def add(
        self, segmented: SegmentedSlice, number: int, prompted_as: int | None, seconds: float
    ) -> None:
        """Record the prediction of a slice for one of its prompts.

        number: index of the prompts in `segmented`. prompted_as: index of the other slice that the
            prompts come from, or None. seconds: time for the slice.

        Raises `InputError` when it cannot be written.
        """
        index, overlap = segmented.prompted.index, segmented.overlaps[number]
        line = {"index": index, "seconds": seconds}
        mask = segmented.masks[number] if self._keeps_masks else None
        # Dictionaries, because a line is written for each slice and protocol: asdict takes longer.
        if overlap.reference or self._case.masks is None:
            line["slice"] = {
                "slice": index,
                "score": segmented.predicted_ious[number],
                "lung_pixels": None,
                "predicted_pixels": overlap.predicted,
                "interactions": segmented.prompted.interactions[number],
            }
            if self._case.masks:
                line["slice"] |= {
                    "jaccard": overlap.jaccard,
                    "dice": overlap.dice,
                    "lung_pixels": overlap.reference,
                    "more": measure_slice(segmented, number, self._case.image, self._options),
                }
        else:
            line["empty_slice"] = {
                "slice": index,
                "prompted_as": prompted_as,
                "predicted_pixels": overlap.predicted,
                "predicted_mm2": overlap.predicted * _pixel_mm2(self._case.image),
            }
        self._log.append(line, mask)
        self._take(line, mask)

    def finish(
        self,
        with_empty_slices: bool = False,
        cells: Mapping[int, Mapping[str, object]] | None = None,
    ) -> None:
        """Write the results, run.json last, and remove the log.

        with_empty_slices: also write `empty_slices.csv`. cells: {index of a slice: {column of
            `raw_data.csv`: value}}, `interactions` and further columns, also of slices without
            objects.

        Raises `InputError` when they cannot be written.
        """
        folder, options = self._folder, self._options
        # Removed first: without run.json the folder is not finished.
        remove(folder / layout.RUN_NAME)
        remove(folder / layout.MASKS_NAME)
        if options.save_masks:
            write_nifti(self._masks, self._case.image.geometry, folder / layout.MASKS_NAME)
        slices = self._case.image.array.shape[2]
        empty_slices = None
        if with_empty_slices or self._empty_slices:
            empty_slices = [self._empty_slices[index] for index in sorted(self._empty_slices)]
        table = slices_table(
            [self._slices.get(index) or self._not_measured(index) for index in range(slices)]
        )
        if cells:
            of_slices = pd.DataFrame.from_dict(cells, orient="index").reindex(table.index)
            table["interactions"] = of_slices.pop("interactions").astype("Int64")
            table = pd.concat([table, of_slices], axis=1)
        of_volume = {}
        if self._case.masks:
            of_volume = measure_volume(self._masks, self._case, table, options)
        if table["interactions"].notna().any():
            of_volume["interactions"] = int(table["interactions"].sum())
        write_volume_tables(folder, table, of_volume, empty_slices)
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

    def _not_measured(self, index: int) -> SliceResult:
        """Return the row of a slice without prompts or objects."""
        masks = self._case.masks
        lung_pixels = masks and int(np.count_nonzero(masks.array[:, :, index]))
        return SliceResult(index, lung_pixels=lung_pixels)

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
        else:
            self._slices[index] = SliceResult(**line["slice"])
        if mask is not None:
            self._masks[:, :, index] = mask


def _pixel_mm2(image: Volume) -> float:
    """Return the area of a pixel; NaN when the spacing is unknown."""
    if image.geometry is None:
        return np.nan
    row_mm, column_mm, _ = image.geometry.spacing_mm
    return row_mm * column_mm
