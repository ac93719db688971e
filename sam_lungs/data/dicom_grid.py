"""Positions of DICOM images -> the order of the slices and one affine, or the reason why not."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam_lungs.utils.errors import InputError

# A slice may be this far from its place between the first and the last slice, along the normal: a
# hundredth of the gap, and at least 0.02 mm, because some scanners round coordinates to 0.01 mm.
GAP_TOLERANCE = 0.01
POSITION_TOLERANCE_MM = 0.02
# And this far in its plane, in pixels: as far as the affines of image and masks may differ.
SHIFT_TOLERANCE = 0.1
LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Plane:
    """The position of one DICOM image; vectors in millimetres, LPS+.

    position: (3,), the centre of the pixel in row 0, column 0.
    directions: (2, 3), unit vectors: towards higher columns, towards higher rows.
    spacing_mm: between rows and between columns. thickness_mm: `None` if unknown.
    """

    path: Path
    shape: tuple[int, int]
    position: np.ndarray
    directions: np.ndarray
    spacing_mm: tuple[float, float]
    thickness_mm: float | None
    is_localizer: bool
    image_uid: str

    @property
    def normal(self) -> np.ndarray:
        return np.cross(*self.directions)


def stack(path: Path, planes: Sequence[Plane]) -> tuple[list[int], np.ndarray]:
    """Return the order of the slices along their normal, and the affine of the sorted stack.

    The affine is (4, 4) float64, indices (column, row, slice) -> millimetres, RAS+. The distance
    between slices is that of their positions; of a single slice it is its thickness, or 1 mm.

    path: of the series, for messages.

    Raises `InputError` when the planes are not one straight stack with equal gaps: another size or
    orientation, the same slice twice, several time points, a tilted gantry, missing slices.
    """
    _check_same_grid(path, planes)
    first = planes[0]
    positions = np.array([plane.position for plane in planes])
    along = positions @ first.normal
    order = np.argsort(along, kind="stable")
    sorted_planes = [planes[index] for index in order]
    gaps = np.diff(along[order])
    if (gaps <= POSITION_TOLERANCE_MM).any():
        _refuse_repeated(path, sorted_planes, gaps)
    gap_mm = gaps.mean() if gaps.size else first.thickness_mm or 1.0
    start = positions[order[0]]
    places = start + np.arange(len(planes))[:, None] * gap_mm * first.normal
    deviations = positions[order] - places
    _check_tilt(path, deviations @ first.directions.T, first.spacing_mm)
    if (
        np.abs(deviations @ first.normal) > max(GAP_TOLERANCE * gap_mm, POSITION_TOLERANCE_MM)
    ).any():
        _refuse_gaps(path, sorted_planes, gaps)
    row_mm, column_mm = first.spacing_mm
    affine = np.eye(4)
    affine[:3, 0] = first.directions[0] * column_mm
    affine[:3, 1] = first.directions[1] * row_mm
    affine[:3, 2] = first.normal * gap_mm
    affine[:3, 3] = start
    return order.tolist(), LPS_TO_RAS @ affine


def _check_same_grid(path: Path, planes: Sequence[Plane]) -> None:
    first = next((plane for plane in planes if not plane.is_localizer), planes[0])
    for plane in planes:
        if plane.is_localizer:
            what = "is a localizer (scout image)"
        elif plane.shape != first.shape:
            what = f"has {plane.shape} pixels, {first.path.name} {first.shape}"
        elif not np.allclose(plane.directions, first.directions, atol=1e-3):
            what = f"has another orientation than {first.path.name}"
        elif not np.allclose(plane.spacing_mm, first.spacing_mm, atol=1e-3):
            what = f"has another pixel spacing than {first.path.name}"
        else:
            continue
        raise InputError(
            f"{path}: one series, but {plane.path.name} {what}; move the images that do not belong"
            " to the volume to another folder"
        )


def _refuse_repeated(path: Path, planes: Sequence[Plane], gaps: np.ndarray) -> None:
    starts = np.flatnonzero(np.append(True, gaps > POSITION_TOLERANCE_MM))
    counts = np.diff(np.append(starts, len(planes)))
    at = int(np.argmin(gaps > POSITION_TOLERANCE_MM))
    one, other = planes[at], planes[at + 1]
    is_copy = bool(one.image_uid) and one.image_uid == other.image_uid
    if not is_copy and len(counts) > 1 and len(set(counts)) == 1:
        raise InputError(
            f"{path}: has {counts[0]} images at each position (time points or phases); move those"
            " of one time point to a folder of their own"
        )
    raise InputError(
        f"{path}: has the same slice twice, {one.path.name} and {other.path.name}; move one of the"
        " two to another folder"
    )


def _check_tilt(path: Path, shifts_mm: np.ndarray, spacing_mm: tuple[float, float]) -> None:
    """Check the (n, 2) shifts in the plane: along a row, and along a column."""
    if (np.abs(shifts_mm) > SHIFT_TOLERANCE * np.array(spacing_mm[::-1])).any():
        raise InputError(
            f"{path}: its slices are shifted by up to {np.abs(shifts_mm).max():.2f} mm in their"
            " plane (gantry tilt); convert it with dcm2niix and give its file ..._Tilt_1.nii.gz"
        )


def _refuse_gaps(path: Path, planes: Sequence[Plane], gaps: np.ndarray) -> None:
    in_gaps = np.rint(gaps / gaps.min())
    if in_gaps.max() > 1 and np.allclose(gaps / gaps.min(), in_gaps, rtol=0.1):
        at = int(np.argmax(in_gaps > 1))
        raise InputError(
            f"{path}: slices are missing ({int((in_gaps - 1).sum())}), the first between"
            f" {planes[at].path.name} and {planes[at + 1].path.name}; export the whole series again"
        )
    raise InputError(
        f"{path}: its slices are {gaps.min():.3f} to {gaps.max():.3f} mm apart; they must have"
        " equal gaps: move the images that do not belong to the volume to another folder"
    )
