"""Hounsfield units -> the 8-bit RGB slice that SAM gets."""

from dataclasses import dataclass

import numpy as np

from sam_lungs.utils.errors import InputError


@dataclass(frozen=True)
class Window:
    """A window of Hounsfield units: its level (middle) and its width."""

    level_hu: float
    width_hu: float

    @property
    def range_hu(self) -> tuple[float, float]:
        """Lowest and highest value in the window."""
        return self.level_hu - self.width_hu / 2, self.level_hu + self.width_hu / 2


LUNG_WINDOW = Window(level_hu=-650, width_hu=1500)

# A chest CT in Hounsfield units always has lower values, because air has -1000 HU.
AIR_BELOW_HU = -500


def choose_window(option: str, values: np.ndarray) -> Window | None:
    """Return the window to apply to the values of a volume; `None` leaves them unchanged.

    option: as `parse_window` takes it, or `auto`: the lung window for values in Hounsfield units,
        none for values in 0..255, like the Radiopaedia half of the dataset.

    Raises `InputError` for another option, and when `auto` cannot decide. The message does not name
    a file.
    """
    if option != "auto":
        return parse_window(option)
    low, high = values.min(), values.max()
    if low < AIR_BELOW_HU:
        return LUNG_WINDOW
    if low >= 0 and high <= 255:
        return None
    raise InputError(
        f"values from {low:g} to {high:g} may or may not be Hounsfield units; choose --window"
        " lung, none or LEVEL,WIDTH"
    )


def parse_window(option: str) -> Window | None:
    """Return the window of an option: `lung`, `none`, or `LEVEL,WIDTH` in Hounsfield units.

    Raises `InputError` for another option.
    """
    if option == "lung":
        return LUNG_WINDOW
    if option == "none":
        return None
    try:
        level_hu, width_hu = (float(number) for number in option.split(","))
    except ValueError:
        level_hu = width_hu = np.nan
    if not (np.isfinite(level_hu) and np.isfinite(width_hu) and width_hu > 0):
        raise InputError("give auto, lung, none, or LEVEL,WIDTH in Hounsfield units")
    return Window(level_hu, width_hu)


def slice_to_rgb(values: np.ndarray, window: Window | None) -> np.ndarray:
    """Convert one slice to the RGB image that SAM gets.

    values: (rows, columns), any real dtype. They are clipped to the window if there is one; then
        minimum to maximum of this slice becomes 0..255 in float64, truncated. A constant slice is
        black.

    Returns (rows, columns, 3) uint8, three equal channels.
    """
    values = values.astype(np.float64)
    if window is not None:
        values = values.clip(*window.range_hu)
    low, high = values.min(), values.max()
    grey = np.zeros(values.shape) if low == high else (values - low) / (high - low) * 255
    return np.repeat(grey.astype(np.uint8)[:, :, None], 3, axis=2)
