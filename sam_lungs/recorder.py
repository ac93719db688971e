"""What SAM answers about the slices of a volume -> the volume's results."""

from pathlib import Path

import numpy as np

from sam_lungs.metrics import surface_agreement
from sam_lungs.options import Options
from sam_lungs.pipeline import SegmentedSlice
from sam_lungs.results import SURFACE_METRICS, EmptySlice, SliceResult, write_results
from sam_lungs.volumes import Volume, write_nifti


class Recorder:
    """Collects the answers to one prompt protocol, in one volume."""

    def __init__(self, image: Volume, options: Options) -> None:
        slices = image.array.shape[2]
        self._image = image
        self._options = options
        self._slices = [SliceResult(index, None, None, None, 0, None) for index in range(slices)]
        self._empty_slices: list[EmptySlice] = []
        # Zeros take no memory until something is written there.
        self._masks = np.zeros(image.array.shape, np.uint8)

    def add(self, segmented: SegmentedSlice, number: int, prompted_as: int) -> None:
        """Take in the answer of that number, to the prompts of the slice `prompted_as`."""
        index, overlap = segmented.asked.index, segmented.overlaps[number]
        if not overlap.true:
            area_mm2 = overlap.predicted * _pixel_mm2(self._image)
            self._empty_slices.append(EmptySlice(index, prompted_as, overlap.predicted, area_mm2))
            return
        self._slices[index] = SliceResult(
            slice=index,
            jaccard=overlap.jaccard,
            dice=overlap.dice,
            score=segmented.scores[number],
            lung_pixels=overlap.true,
            predicted_pixels=overlap.predicted,
            **measure_surface(segmented, number, self._image, self._options),
        )
        if self._options.save_masks:
            self._masks[:, :, index] = segmented.masks[number]

    def write(self, folder: Path, run: dict) -> None:
        """Write all that the options ask for; what an earlier run left beside it goes.

        Raises `InputError` when it cannot be written.
        """
        masks_path = folder / "predicted_masks.nii.gz"
        if self._options.save_masks:
            write_nifti(self._masks, self._image.geometry, masks_path)
        else:
            masks_path.unlink(missing_ok=True)
        empty_slices = self._empty_slices if self._options.empty_slices == "nearest" else None
        write_results(folder, self._slices, run, self._options.metrics, empty_slices)


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


def _pixel_mm2(image: Volume) -> float:
    """Area of a pixel; NaN when the spacing is not known."""
    if image.geometry is None:
        return np.nan
    row_mm, column_mm, _ = image.geometry.spacing_mm
    return row_mm * column_mm
