"""Distances between the surfaces of two masks, in 2-D and in 3-D: NSD and HD95.

The surface of a mask lies between its voxels. In every corner shared by 2 x 2 pixels, or by
2 x 2 x 2 voxels, some inside and some outside, lies one surface element. Its length or area follows
from which of them are inside. This is the definition of Nikolov et al. 2021 (doi 10.2196/26151) and
of google-deepmind/surface-distance, with the tables of lengths and areas that MONAI ships.
docs/metrics.md compares it with others.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.ndimage import distance_transform_edt, find_objects
from scipy.spatial import KDTree

NAN = float("nan")


class SurfaceAgreement(NamedTuple):
    """nsd: normalized surface Dice, 0..1, one per tolerance; hd95_mm: 95 % Hausdorff distance."""

    nsd: tuple[float, ...]
    hd95_mm: float


def surface_agreement(
    predicted: np.ndarray,
    reference: np.ndarray,
    spacing_mm: Sequence[float],
    tolerances_mm: Sequence[float],
) -> SurfaceAgreement:
    """Compare the surfaces of two boolean masks.

    predicted, reference: bool arrays of one shape, (rows, columns) or (rows, columns, slices).
    spacing_mm: distance between neighbours along each axis. tolerances_mm: distances between
        surfaces that still count as agreement.

    The distance of a surface element is that to the closest element of the other surface. `nsd` is
    the area of the elements of both surfaces whose distance is at most the tolerance, divided by
    the area of both surfaces. The 95th percentile of a surface is the smallest distance that
    elements with at least 95 % of its area do not exceed; `hd95_mm` is the larger one of the two
    surfaces. Beyond the border of the array everything is outside.

    When one mask is empty, each `nsd` is 0 and `hd95_mm` is NaN; when both are, all are NaN.
    """
    empty = [not mask.any() for mask in (predicted, reference)]
    if any(empty):
        return SurfaceAgreement((NAN if all(empty) else 0.0,) * len(tolerances_mm), NAN)
    (box,) = find_objects((predicted | reference).view(np.uint8))
    codes = [_neighbour_codes(np.pad(mask[box], 1)) for mask in (predicted, reference)]
    on_surface = [(code != 0) & (code != 2**2**code.ndim - 1) for code in codes]
    element_areas = _element_areas(spacing_mm)
    areas = [element_areas[code[on]] for code, on in zip(codes, on_surface, strict=True)]
    distances = [_distances(*pair, spacing_mm) for pair in (on_surface, on_surface[::-1])]
    hd95_mm = max(map(_percentile_95, distances, areas))
    # In single precision 3 x 0.1 mm is within 0.3 mm; in double precision it is not.
    rounded_mm, area = np.concatenate(distances).astype(np.float32), np.concatenate(areas)
    close = [area[rounded_mm <= np.float32(tolerance)].sum() for tolerance in tolerances_mm]
    return SurfaceAgreement(tuple((close / area.sum()).tolist()), float(hd95_mm))


def _neighbour_codes(mask: np.ndarray) -> np.ndarray:
    """Return a code for each corner inside the array: a bit for each voxel around it."""
    codes = np.zeros([size - 1 for size in mask.shape], np.uint8)
    for offset in np.ndindex((2,) * mask.ndim):
        voxel = tuple(slice(at, at + size) for at, size in zip(offset, codes.shape, strict=True))
        codes <<= 1
        codes |= mask[voxel]
    return codes


def _element_areas(spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the length in mm, or the area in mm2, of the surface element of each code."""
    # Imported here, because the import takes seconds and only these metrics need it.
    from monai.metrics.utils import get_code_to_measure_table

    return get_code_to_measure_table(list(spacing_mm))[0].double().numpy()


def _distances(surface: np.ndarray, other: np.ndarray, spacing_mm: Sequence[float]) -> np.ndarray:
    """Return the distance in mm of each element of a surface to the closest of the other one."""
    at = np.argwhere(surface)
    if surface.ndim == 2:
        return KDTree(np.argwhere(other) * spacing_mm).query(at * spacing_mm)[0]
    # A tree can take many minutes where two surfaces of a volume lie far apart.
    closest = distance_transform_edt(
        ~other, sampling=spacing_mm, return_distances=False, return_indices=True
    )
    return np.linalg.norm((closest[:, surface].T - at) * spacing_mm, axis=1)


def _percentile_95(distances: np.ndarray, areas: np.ndarray) -> float:
    """Return the smallest distance that elements with 95 % of the area do not exceed."""
    order = np.argsort(distances)
    area = np.cumsum(areas[order])
    # MONAI's areas are in single precision: a share of 95 % may come out a little smaller.
    return distances[order[np.searchsorted(area, (0.95 - 1e-6) * area[-1])]]
