"""Voxels along the axes of a file -> an array (rows, columns, slices)."""

from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel import orientations

from sam_lungs.data.volume import Geometry
from sam_lungs.utils.errors import InputError

# As in `nibabel.orientations`: the first two axes of the file are swapped.
PAPER_AXES = np.array([[1, 1], [0, 1], [2, 1]])
# Row 0 anterior, column 0 patient right, slice 0 inferior: indices grow towards P, L and S.
RADIOLOGICAL_CODES = ("P", "L", "S")
ORIENTATIONS = ("paper", "radiological")


def arrange(
    path: Path, voxels: np.ndarray, geometry: Geometry | None, orientation: str
) -> tuple[np.ndarray, Geometry | None]:
    """Return an array (rows, columns, slices), and its geometry.

    voxels: along the axes of the file; for DICOM, ITK and pictures (columns, rows, slices), so that
        the paper's rule, which swaps the first two axes, gives rows and columns as displayed.
    geometry: of these voxels, see `on_file_axes`; `None` if nothing is known.
    orientation: see `read_nifti`.

    Raises `InputError` when `radiological` does not know where the axes point.
    """
    file_to_array = PAPER_AXES
    if orientation == "radiological":
        if geometry is None or not geometry.is_oriented:
            raise InputError(f"{path}: does not say its orientation; use --orientation paper")
        file_to_array = orientations.ornt_transform(
            nib.io_orientation(geometry.affine), orientations.axcodes2ornt(RADIOLOGICAL_CODES)
        ).astype(int)
    array = orientations.apply_orientation(voxels, file_to_array)
    if geometry is None:
        return array, None
    return array, replace(geometry, file_shape=voxels.shape, file_to_array=file_to_array)


def spacing_geometry(spacing_mm: tuple[float, ...], shape: tuple[int, int, int]) -> Geometry:
    """Return the geometry of an array of which only the spacing is known.

    spacing_mm: between rows, columns and slices; without the last, 1 mm. shape: of the array.
    """
    rows, columns, slices = shape
    row_mm, column_mm, slice_mm = (*spacing_mm, 1.0)[:3]
    affine = np.diag([column_mm, row_mm, slice_mm, 1.0])
    return Geometry(affine, (columns, rows, slices), PAPER_AXES, is_oriented=False)
