"""DICOM files as a scanner writes them, for the tests."""

import warnings
from collections.abc import Callable
from pathlib import Path

import highdicom
import numpy as np
from pydicom import Dataset, dcmread
from pydicom.dataset import FileMetaDataset
from pydicom.sr.codedict import codes
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

# 3 x 4 x 5 different voxels.
VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5) - 7
AXIAL = ((1, 0, 0), (0, 1, 0))
# With angles that no axis of the patient has.
OBLIQUE = tuple(map(tuple, np.linalg.qr(np.array([[9.0, 2, 1], [-1, 8, 3], [2, -2, 7]]))[0].T[:2]))


def image(
    pixels: np.ndarray,
    position: tuple[float, float, float] = (0, 0, 0),
    directions: tuple = AXIAL,
    series: str = "1.2.3",
) -> Dataset:
    """Return a CT image of int16 or uint16 pixels (rows, columns), 0.5 x 0.75 mm."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID, dataset.SOPInstanceUID = CTImageStorage, generate_uid(entropy_srcs=None)
    dataset.StudyInstanceUID, dataset.FrameOfReferenceUID = "1.2", "1.2.9"
    dataset.SeriesInstanceUID, dataset.Modality, dataset.ImageType = series, "CT", ["ORIGINAL"]
    dataset.PatientName = dataset.PatientID = dataset.PatientBirthDate = dataset.PatientSex = ""
    dataset.StudyDate = dataset.StudyTime = dataset.AccessionNumber = dataset.StudyID = ""
    dataset.ReferringPhysicianName = ""
    dataset.SeriesNumber = dataset.InstanceNumber = 1
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.PixelSpacing, dataset.SliceThickness = [0.5, 0.75], 2
    dataset.ImagePositionPatient = [float(each) for each in position]
    dataset.ImageOrientationPatient = [float(each) for each in np.ravel(directions)]
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation = 15, int(pixels.dtype.kind == "i")
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, 0
    dataset.PixelData = pixels.tobytes()
    return dataset


def scan(array: np.ndarray = VOXELS, gap_mm: float = 2, directions: tuple = AXIAL, **options):
    """Return the images of an int16 or uint16 array (rows, columns, slices)."""
    normal = np.cross(*np.array(directions, dtype=float))
    return [
        image(np.ascontiguousarray(array[:, :, index]), position, directions, **options)
        for index in range(array.shape[2])
        for position in [np.array([-9, 8, 30]) + index * gap_mm * normal]
    ]


def segmentation(images, labels, kind="BINARY"):
    """Return a DICOM-SEG of labels (rows, columns, slices), or of (slices, rows, columns, n)."""
    stack = np.moveaxis(labels, 2, 0) if labels.ndim == 3 else labels
    count = labels.max() if labels.ndim == 3 else labels.shape[3]
    descriptions = [
        highdicom.seg.SegmentDescription(
            segment_number=number,
            segment_label=f"lung {number}",
            segmented_property_category=codes.SCT.Organ,
            segmented_property_type=codes.SCT.Lung,
            algorithm_type="MANUAL",
        )
        for number in range(1, int(count) + 1)
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return highdicom.seg.Segmentation(
            images,
            stack,
            kind,
            descriptions,
            "1.2.7",
            2,
            "1.2.7.1",
            1,
            manufacturer="none",
            manufacturer_model_name="none",
            software_versions="1",
            device_serial_number="1",
        )


def save(folder: Path, images: list[Dataset]) -> Path:
    """Write files whose names say nothing of the order: 0.dcm is the last slice."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, dataset in enumerate(reversed(images)):
        dataset.save_as(folder / f"{number}.dcm", enforce_file_format=True)
    return folder


def change(folder: Path, edit: Callable[[Dataset], None], name: str = "2.dcm") -> Path:
    """Edit a file of the folder; return its path."""
    dataset = dcmread(folder / name)
    edit(dataset)
    dataset.save_as(folder / name)
    return folder / name
