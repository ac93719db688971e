"""A case: an image and its lung masks, the window, and all faults of the two files."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sam_lungs.data.volume import Volume, volume_name
from sam_lungs.data.windowing import Window


@dataclass(frozen=True, eq=False)
class Case:
    """An image and its masks, both (rows, columns, slices).

    image, masks: `None` where the file could not be read. window: `None` if the values are used
    unchanged. geometry_warning: set if the affines disagree. faults: a message for each fault;
    empty if the case can be processed.
    """

    image_path: Path
    masks_path: Path
    image: Volume | None
    masks: Volume | None
    window: Window | None
    geometry_warning: str | None
    faults: list[str]

    @property
    def name(self) -> str:
        """Name of the image, and of its results folder."""
        return volume_name(self.image_path)

    @cached_property
    def lung_slices(self) -> list[int]:
        """Indices of the slices with lung."""
        return np.flatnonzero(self.masks.array.any(axis=(0, 1))).tolist()

    def prompted(self, empty_slices: str) -> dict[int, int]:
        """Return {index of a slice to segment: index of the slice whose masks give its prompts}.

        empty_slices: `skip` leaves out slices without lung. `nearest` gives them the prompts of the
            nearest slice with lung; of two equally near slices, the lower index is used.
        """
        if empty_slices == "skip":
            return {index: index for index in self.lung_slices}
        lung_slices = np.array(self.lung_slices)
        return {
            index: int(lung_slices[np.argmin(np.abs(lung_slices - index))])
            for index in range(self.image.array.shape[2])
        }
