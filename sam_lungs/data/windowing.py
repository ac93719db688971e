"""Hounsfield units -> the 8-bit RGB slice that SAM sees."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam_lungs.data.volumes import Volume
from sam_lungs.utils.errors import InputError


@dataclass(frozen=True)
class Window:
    """A range of Hounsfield units, by its middle and its extent."""

    level_hu: float
    width_hu: float

    @property
    def range_hu(self) -> tuple[float, float]:
        """Lowest and highest value that the window tells apart."""
        return self.level_hu - self.width_hu / 2, self.level_hu + self.width_hu / 2


LUNG_WINDOW = Window(level_hu=-650, width_hu=1500)

# Every chest CT in Hounsfield units has air (-1000 HU) in it; no windowed volume has.
SURELY_AIR_HU = -500


def choose_window(option: str, volume: Volume) -> Window | None:
    """Return the window to apply to a volume; `None` leaves its values as they are.

    option: `lung`; `none`; `LEVEL,WIDTH` in Hounsfield units; or `auto`: the lung window for a
        volume in Hounsfield units, none for one that is 0..255 already, as the Radiopaedia half
        of the dataset was published.

    Raises `InputError` for any other option, and when `auto` meets values that could be either.
    """
    if option == "auto":
        return _detect_window(volume.array, volume.path)
    if option == "lung":
        return LUNG_WINDOW
    if option == "none":
        return None
    try:
        level_hu, width_hu = (float(number) for number in option.split(","))
    except ValueError:
        level_hu = width_hu = np.nan
    if not (np.isfinite(level_hu) and np.isfinite(width_hu) and width_hu > 0):
        raise InputError(f"--window {option}: must be auto, lung, none, or LEVEL,WIDTH in HU")
    return Window(level_hu, width_hu)


def slice_to_rgb(values: np.ndarray, window: Window | None) -> np.ndarray:
    """Turn one slice into the picture that SAM sees.

    values: (rows, columns), any real dtype. Clipped to the window where there is one; then the
    slice's own minimum to maximum becomes 0..255 in float64, truncated. A constant slice is black.

    Returns (rows, columns, 3) uint8, three equal channels.
    """
    values = values.astype(np.float64)
    if window is not None:
        values = values.clip(*window.range_hu)
    low, high = values.min(), values.max()
    grey = np.zeros(values.shape) if low == high else (values - low) / (high - low) * 255
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)


def _detect_window(array: np.ndarray, path: Path) -> Window | None:
    low, high = array.min(), array.max()
    if low < SURELY_AIR_HU:
        return LUNG_WINDOW
    if low >= 0 and high <= 255:
        return None
    raise InputError(
        f"{path}: values from {low:g} to {high:g} could be Hounsfield units or not;"
        " say which with --window lung, none or LEVEL,WIDTH"
    )
