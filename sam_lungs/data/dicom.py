"""DICOM: a folder with a series of CT images, an X-ray, or a segmentation.

pydicom and its JPEG decoders are the optional extra `dicom`.
"""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sam_lungs.data import guard
from sam_lungs.data.axes import arrange, spacing_geometry
from sam_lungs.data.dicom_files import (
    Frame,
    choose_series,
    dicom_files,
    is_localizer,
    quiet_pydicom,
    read_frames,
    sha256_of_hashes,
)
from sam_lungs.data.dicom_grid import Plane, stack
from sam_lungs.data.dicom_seg import read_segmentation
from sam_lungs.data.volume import Geometry, Volume, planes, smallest_dtype
from sam_lungs.utils.errors import InputError

if TYPE_CHECKING:
    from pydicom import Dataset

X_RAYS = ("CR", "DX", "RG")


def read_dicom(path: Path, series: str | None = None, orientation: str = "paper") -> Volume:
    """Read a series of DICOM images, (rows, columns, slices), in Hounsfield units for CT.

    path: one file, or a folder, which is searched with its subfolders. Files are recognised by
        their content. Segmentations and localizers are ignored beside another series.
    series: the SeriesInstanceUID, where there are several.
    orientation: see `read_nifti`. `paper` gives rows and columns as the images are displayed, and
        slices sorted along their normal, as in the NIfTI file that ITK writes of the series.

    Every image is scaled by its own slope and intercept. The dtype is the smallest of uint8, int16
    and int32 that holds integral values, otherwise float32. An X-ray is a picture of one slice; it
    is inverted if it is stored as a negative. A segmentation: see `read_segmentation`.

    Raises `InputError` without the extra `dicom`, when there are several series, and for images
    that are not one regular stack, see `dicom_grid.stack`.
    """
    with guard.reading(path), quiet_pydicom(path):
        hashes, frames = {}, []
        for file in dicom_files(path):
            with quiet_pydicom(file):
                content, hashes[file] = guard.read_bytes(file)
                frames += read_frames(file, content, hashes[file])
        sha256 = hashes[path] if path in hashes else sha256_of_hashes(hashes.values())
        frames = choose_series(path, frames, series)
        first = frames[0].tags
        if first.get("Modality") == "SEG":
            if len(frames) > 1:
                raise InputError(f"{path}: holds {len(frames)} segmentations; give one file")
            return read_segmentation(path, frames[0], sha256, orientation)
        is_picture = first.get("Modality") in X_RAYS
        if is_picture:
            geometry = _x_ray_geometry(path, frames)
        else:
            order, affine = stack(path, [_plane(frame) for frame in frames])
            frames = [frames[index] for index in order]
            geometry = Geometry(affine, (first.Columns, first.Rows, len(frames)), np.eye(3, 2))
        voxels = _decode(path, frames)
        if is_picture and first.PhotometricInterpretation == "MONOCHROME1":
            voxels = voxels.min() + voxels.max() - voxels.astype(np.float64)
            voxels = voxels.astype(smallest_dtype(planes(voxels)))
        array, geometry = arrange(path, voxels, geometry, orientation)
        guard.check_finite(path, array)
        return Volume(
            array,
            geometry,
            path,
            sha256,
            orientation,
            is_picture=is_picture,
            source_name=path.absolute().name,  # also for the folder "."
        )


def _plane(frame: Frame) -> Plane:
    tags = frame.tags
    if not tags.get("ImagePositionPatient") or not tags.get("ImageOrientationPatient"):
        raise InputError(
            f"{frame.path}: an image without a position in the patient; give the original series"
        )
    position = np.array(tags.ImagePositionPatient, dtype=np.float64)
    directions = np.array(tags.ImageOrientationPatient, dtype=np.float64).reshape(2, 3)
    spacing_mm = tuple(map(float, tags.get("PixelSpacing") or ()))
    is_valid = (
        position.shape == (3,)
        and np.isfinite(position).all()
        and np.allclose(directions @ directions.T, np.eye(2), atol=1e-3)
        and len(spacing_mm) == 2
        and all(0 < spacing < np.inf for spacing in spacing_mm)
    )
    if not is_valid:
        raise InputError(
            f"{frame.path}: its position, orientation or spacing is damaged; export it again"
        )
    thickness_mm = tags.get("SliceThickness")
    return Plane(
        frame.path,
        (int(tags.Rows), int(tags.Columns)),
        position,
        directions / np.linalg.norm(directions, axis=1, keepdims=True),
        spacing_mm,
        float(thickness_mm) if thickness_mm else None,
        is_localizer(frame),
        f"{tags.get('SOPInstanceUID') or ''} {frame.index}".strip(),
    )


def _x_ray_geometry(path: Path, frames: list[Frame]) -> Geometry | None:
    tags = frames[0].tags
    count = len(frames) * int(tags.get("NumberOfFrames") or 1)
    if count > 1:
        raise InputError(f"{path}: has {count} X-rays in one series; give one file of one image")
    spacing_mm = tags.get("PixelSpacing") or tags.get("ImagerPixelSpacing")
    if not spacing_mm:
        return None
    return spacing_geometry(tuple(map(float, spacing_mm)), (tags.Rows, tags.Columns, 1))


def _decode(path: Path, frames: list[Frame]) -> np.ndarray:
    """Return the scaled voxels, (columns, rows, slices), in the smallest dtype."""
    from pydicom import dcmread

    tags = frames[0].tags
    shape = (int(tags.Rows), int(tags.Columns), len(frames))
    guard.check_claim(path, shape, np.dtype(f"i{max(int(tags.BitsAllocated), 16) // 8}"), 0)
    slices, file = [], None
    for frame in frames:
        with quiet_pydicom(frame.path):
            if frame.path != file:
                file, dataset = frame.path, dcmread(frame.open(), force=True)
            slices.append(_decode_frame(frame, dataset))
    del dataset
    voxels = np.empty((len(slices), *shape[:2]), smallest_dtype(slices))
    for index in range(len(slices)):
        voxels[index], slices[index] = slices[index], None
    return voxels.T


def _decode_frame(frame: Frame, dataset: "Dataset") -> np.ndarray:
    """Return one image (rows, columns), scaled, in the smallest dtype."""
    from pydicom.pixels import apply_modality_lut, get_decoder, pixel_array
    from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

    tags = frame.tags
    kind = str(tags.get("PhotometricInterpretation"))
    if tags.get("SamplesPerPixel") != 1 or not kind.startswith("MONOCHROME"):
        raise InputError(f"{frame.path}: a colour image ({kind}); give the original series")
    if "TransferSyntaxUID" not in dataset.file_meta:
        is_implicit = dataset.original_encoding[0]
        syntax = ImplicitVRLittleEndian if is_implicit else ExplicitVRLittleEndian
        dataset.file_meta.TransferSyntaxUID = syntax
    syntax = dataset.file_meta.TransferSyntaxUID
    if not get_decoder(syntax).is_available:
        raise ImportError
    if syntax.is_encapsulated and syntax != RLELossless:
        _check_codestream(frame, dataset)
    stored = pixel_array(dataset, index=frame.index)
    if stored.shape != (tags.Rows, tags.Columns):
        raise ValueError
    if tags.get("ModalityLUTSequence"):
        values = apply_modality_lut(stored, tags)
    else:
        slope, intercept = (tags.get(f"Rescale{name}") for name in ("Slope", "Intercept"))
        values = stored * float(1 if slope is None else slope) + float(intercept or 0)
    return values.astype(smallest_dtype([values]))


def _check_codestream(frame: Frame, dataset: "Dataset") -> None:
    """Check the size in a JPEG image: decoders reserve memory for it before they compare it."""
    from libjpeg.utils import get_parameters as read_jpeg
    from openjpeg.utils import get_parameters as read_jpeg_2000
    from pydicom.encaps import get_frame
    from pydicom.uid import JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

    codestream = get_frame(
        dataset.PixelData, frame.index, number_of_frames=int(dataset.get("NumberOfFrames") or 1)
    )
    is_jpeg = dataset.file_meta.TransferSyntaxUID in JPEGTransferSyntaxes + JPEGLSTransferSyntaxes
    found = (read_jpeg if is_jpeg else read_jpeg_2000)(codestream)
    if (found["rows"], found["columns"]) != (frame.tags.Rows, frame.tags.Columns):
        raise InputError(
            f"{frame.path}: its JPEG image has {found['rows']} x {found['columns']} pixels, other"
            " than its header says; export it again"
        )
