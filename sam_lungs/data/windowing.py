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
# Of the voxels of a CT that are not fill, at least this share is air, and as many are soft tissue.
# Measured: air 36 % and more, tissue 19 % and more, in the real volumes and the phantoms.
LEAST_SHARE = 0.01
AIR_HU = (-1100, AIR_BELOW_HU)
TISSUE_HU = (-200, 200)

# What files add to Hounsfield units: raw values of scanners, an intercept that was applied twice,
# and 16-bit values made unsigned. 1024 also stands for 1000, which real air cannot tell from it.
OFFSETS = (0, 1024, -1024, 32768)
# The median of the voxels of a lung. Measured: -919 to -825 HU. Narrower than a step of OFFSETS.
AERATED_HU = (-1000, -300)
# Values under the masks outside the window. Measured for right windows: at most 0.3 % on real
# volumes and phantoms, and 5 % are vessels with contrast agent; for wrong ones 34 % and more.
MOST_OUTSIDE = 0.2
# Values below 0 HU under the masks in a window of air. Measured: 98 % and more in lungs; dense
# consolidations have half of it, and values that are no Hounsfield units none.
LEAST_NEGATIVE = 0.1
# The range of the picture that all but 1 % of the values use. Measured: 8-bit values beside a fill
# of -1024 use 20 %, Hounsfield units of -1024..3071 39 %.
LEAST_RANGE = 0.25

_SAMPLED_VOXELS = 1_000_000


def choose_window(
    option: str,
    values: np.ndarray,
    under_masks: np.ndarray | None = None,
    is_picture: bool = False,
) -> Window | None:
    """Return the window to apply to the values of a volume; `None` leaves them unchanged.

    option: as `parse_window` takes it, or `auto`: none for a picture; the lung window for values in
        Hounsfield units; none for values in 0..255, like the Radiopaedia half of the dataset.
    under_masks: the values under the masks. Without them, values below -500 count as Hounsfield
        units only if the histogram has air and soft tissue. `wrong_window` checks the choice.

    Raises `InputError` for another option, and when `auto` cannot decide. The message does not name
    a file.
    """
    if option != "auto":
        return parse_window(option)
    low, high = values.min(), values.max()
    if is_picture or (low >= 0 and high <= 255):
        return None
    if low < AIR_BELOW_HU and (under_masks is not None or _is_ct(_without_fill(values))):
        return LUNG_WINDOW
    suggestion = suggest_window(values, under_masks)
    raise InputError(
        f"values from {low:g} to {high:g} may or may not be Hounsfield units; "
        + (suggestion or "choose --window LEVEL,WIDTH, or none to show all values")
    )


def wrong_window(
    window: Window | None, values: np.ndarray, under_masks: np.ndarray | None = None
) -> str | None:
    """Return why SAM would not see the objects in a volume with this window, else `None`.

    values: of the volume. under_masks: those under the masks, (voxels,). The text names a window
    only if it passes this check.
    """
    reason = _reason(window, values, under_masks)
    if reason is None:
        return None
    remedy = "give another --window LEVEL,WIDTH"
    if window is not None:
        remedy = f"if the masks hold other organs, choose the lungs with --labels, else {remedy}"
    return f"{reason}; {suggest_window(values, under_masks) or remedy}"


def suggest_window(values: np.ndarray, under_masks: np.ndarray | None) -> str | None:
    """Return what the values look like, with the `--window` that fits, or `None`.

    With `under_masks` a window fits if the voxels under the masks look like a lung, else if the
    histogram of the volume has air and soft tissue.
    """
    rest = _without_fill(values)
    if np.percentile(rest, 0.5) >= 0 and np.percentile(rest, 99.5) <= 255:
        if _reason(Window(127.5, 255), values, under_masks) is None:
            return "the values look like 0..255 beside a fill: give --window 127.5,255"
        return None
    for offset in OFFSETS:
        window = Window(LUNG_WINDOW.level_hu + offset, LUNG_WINDOW.width_hu)
        if under_masks is None:
            looks_right = _is_ct(rest - float(offset))
        else:
            is_lung = AERATED_HU[0] <= np.median(under_masks) - offset <= AERATED_HU[1]
            looks_right = is_lung and _has_tissue(rest - float(offset))
        if not looks_right or _reason(window, values, under_masks):
            continue
        if offset == 0:
            return "the values look like HU: give --window lung"
        formula = f"HU {'-+'[offset > 0]} {abs(offset)}"
        option = f"{window.level_hu:g},{window.width_hu:g}"
        return f"the values look like {formula}: give --window {option}"
    return None


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


def _reason(
    window: Window | None, values: np.ndarray, under_masks: np.ndarray | None
) -> str | None:
    if window is None:
        low, high = float(values.min()), float(values.max())
        used = np.percentile(_without_fill(values), [0.5, 99.5])
        if used[0] < used[1] < used[0] + LEAST_RANGE * (high - low):
            return (
                f"99 % of the values lie from {used[0]:g} to {used[1]:g}, a small part of the"
                f" range {low:g} to {high:g} that is shown without a window"
            )
        return None
    if under_masks is None:
        return None
    low, high = window.range_hu
    outside = np.mean((under_masks < low) | (under_masks > high))
    if outside > MOST_OUTSIDE:
        return (
            f"{outside:.0%} of the voxels under the masks lie outside the window {low:g}..{high:g},"
            " which makes them black or white"
        )
    if low <= AIR_BELOW_HU and np.mean(under_masks < 0) < LEAST_NEGATIVE:
        return (
            f"{np.mean(under_masks >= 0):.0%} of the voxels under the masks are not below 0, so the"
            " values are no Hounsfield units, or the masks no lungs"
        )
    return None


def _without_fill(values: np.ndarray) -> np.ndarray:
    """Return a sample of the values, (voxels,), without the lowest, which may be a fill.

    A volume of one value is returned with it.
    """
    step = max(1, round((values.size / _SAMPLED_VOXELS) ** (1 / values.ndim)))
    sample = values[(slice(None, None, step),) * values.ndim].ravel()
    rest = sample[sample > values.min()]
    return rest if len(rest) else sample


def _is_ct(sample_hu: np.ndarray) -> bool:
    """Return whether the values have the air and the soft tissue of a CT in Hounsfield units."""
    air = np.mean((sample_hu > AIR_HU[0]) & (sample_hu < AIR_HU[1]))
    return air >= LEAST_SHARE and _has_tissue(sample_hu)


def _has_tissue(sample_hu: np.ndarray) -> bool:
    """Return whether the values have the soft tissue of a CT, and nothing thinner than air."""
    tissue = np.mean((sample_hu > TISSUE_HU[0]) & (sample_hu < TISSUE_HU[1]))
    return tissue >= LEAST_SHARE > np.mean(sample_hu <= AIR_HU[0])
