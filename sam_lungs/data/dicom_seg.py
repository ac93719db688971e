"""DICOM-SEG: the masks of a DICOM series, read with highdicom."""

from pathlib import Path

import numpy as np

from sam_lungs.data import guard
from sam_lungs.data.axes import arrange
from sam_lungs.data.dicom_files import Frame, quiet_pydicom
from sam_lungs.data.volume import Geometry, Volume, planes, smallest_dtype
from sam_lungs.utils.errors import InputError

# One minus the cosine of 0.03 degrees, a shift of less than 0.2 mm over 300 mm.
TILT_TOLERANCE = 1e-7


def read_segmentation(path: Path, frame: Frame, sha256: str, orientation: str = "paper") -> Volume:
    """Read a DICOM-SEG file into labels, (rows, columns, slices): segment numbers, 0 elsewhere.

    The slices reach from the first to the last one that the file has; the file leaves out slices
    without a segment. Only the affine says where they lie among those of the image: `is_placed`.

    path: as given by the user. frame: the segmentation. sha256: of `path`.

    Raises `InputError` for a file that is damaged, fractional, too large, not regularly spaced, or
    has segments that overlap.
    """
    file = frame.path
    with guard.reading(path), quiet_pydicom(file):
        import highdicom

        segmentation = highdicom.seg.segread(frame.open())
        if segmentation.SegmentationType == "FRACTIONAL":
            raise InputError(f"{file}: a fractional segmentation; save it as a binary one")
        tolerance = {"perpendicular_tol": TILT_TOLERANCE, "allow_missing_positions": True}
        grid = segmentation.get_volume_geometry(**tolerance)
        if grid is None:
            raise InputError(f"{file}: its slices are not equally spaced; save it as NIfTI")
        guard.check_claim(file, grid.spatial_shape, np.dtype(np.uint16), 0)
        try:
            volume = segmentation.get_volume(combine_segments=True, **tolerance)
        except RuntimeError as error:
            if "overlap" not in str(error):
                raise
            raise InputError(
                f"{file}: its segments overlap; save each as a file of its own"
            ) from None
        # As in `stack`: (column, row, slice), with slices sorted along the normal.
        volume = volume.permute_spatial_axes([2, 1, 0])
        volume = volume.ensure_handedness("RIGHT_HANDED", flip_axis=2)
        geometry = Geometry(volume.get_affine("RAS"), volume.spatial_shape, np.eye(3, 2))
        array, geometry = arrange(path, volume.array, geometry, orientation)
        return Volume(
            array.astype(smallest_dtype(planes(array))),
            geometry,
            path,
            sha256,
            orientation,
            is_placed=True,
            source_name=path.absolute().name,
        )
