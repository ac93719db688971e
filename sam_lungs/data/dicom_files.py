"""The DICOM files of a folder, the images in them, and the series they belong to.

Only the tags in `TAGS` are kept, and the messages of pydicom are not passed on: both could hold the
name of a patient.
"""

import hashlib
import logging
import os
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from sam_lungs.data import guard
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import sha256_of

if TYPE_CHECKING:
    from pydicom import Dataset

GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
TAGS = (
    *("TransferSyntaxUID", "SOPInstanceUID", "SeriesInstanceUID", "SeriesDescription", "Modality"),
    *("ImageType", "Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation"),
    *("BitsAllocated", "BitsStored", "NumberOfFrames", "ImagePositionPatient"),
    *("ImageOrientationPatient", "PixelSpacing", "ImagerPixelSpacing", "SliceThickness"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence", *GROUPS),
)
DEFLATED = b"1.2.840.10008.1.2.1.99"


@dataclass(frozen=True, eq=False)
class Frame:
    """An image of a DICOM file: its tags, and its index in a file of several frames."""

    path: Path
    sha256: str
    tags: "Dataset"
    index: int = 0

    def open(self) -> BytesIO:
        """Read the file again; raises `InputError` when it was changed since its hash was made."""
        content, sha256 = guard.read_bytes(self.path)
        if sha256 != self.sha256:
            raise InputError(f"{self.path}: was changed while it was read; run it again")
        return BytesIO(content)


def identify_dicom(path: Path) -> str:
    """Return the SHA-256 of a DICOM file; of a folder, the SHA-256 of its files' sorted SHA-256s.

    In lower-case hexadecimal. Raises `InputError` when a file cannot be read.
    """
    with guard.reading(path):
        hashes = {file: sha256_of(file) for file in dicom_files(path)}
        return hashes[path] if path in hashes else sha256_of_hashes(hashes.values())


def dicom_files(path: Path) -> list[Path]:
    """Return the DICOM files in a folder and its subfolders, by their content; a file as it is.

    Raises `InputError` when there are none, `OSError` when a folder or file cannot be read.
    """
    if not path.is_dir():
        return [path]

    def stop(error: OSError) -> None:
        raise error

    names = ((Path(folder), name) for folder, _, names in os.walk(path, stop) for name in names)
    found = sorted(folder / name for folder, name in names if _is_dicom(folder / name))
    if not found:
        raise InputError(f"{path}: a folder without DICOM files; give the folder of one scan")
    return found


def _is_dicom(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        start = file.read(132)
    # Without the preamble, a file begins with a tag of group 2 or 8.
    return start[128:] == b"DICM" or (start[:2] in (b"\2\0", b"\10\0") and len(start) == 132)


def sha256_of_hashes(hashes: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(sorted(hashes)).encode()).hexdigest()


@contextmanager
def quiet_pydicom(path: Path) -> Iterator[None]:
    """Turn the errors of pydicom into an `InputError` without their text; silence its warnings."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for name in ("pydicom", "highdicom", "pylibjpeg", "libjpeg", "openjpeg"):
                logging.getLogger(name).setLevel(logging.CRITICAL)
            yield
    except ImportError:
        raise InputError(
            f'{path}: DICOM needs optional packages; install them: pip install ".[dicom]"'
        ) from None
    except (InputError, MemoryError):
        raise
    except Exception as error:  # a damaged file raises almost any type
        if isinstance(error, OSError) and error.strerror:
            raise
        raise InputError(
            f"{path}: not a valid DICOM file ({type(error).__name__}); export it again"
        ) from None


def read_frames(path: Path, content: bytes, sha256: str) -> list[Frame]:
    """Return the images of a file; none for a file that holds another kind of object."""
    from pydicom import Dataset, dcmread

    if DEFLATED in content[:1024]:  # would be decompressed as a whole, whatever its size
        raise InputError(f"{path}: a deflated DICOM file; export it uncompressed or as JPEG 2000")
    tags = dcmread(BytesIO(content), stop_before_pixels=True, force=True, specific_tags=list(TAGS))
    if not tags.get("Rows") or not tags.get("Columns"):
        return []
    if GROUPS[1] not in tags or tags.get("Modality") == "SEG":
        return [Frame(path, sha256, tags)]
    # Enhanced multi-frame: tags are in sequences of one item, shared or per frame.
    common = Dataset({each.tag: each for each in tags if each.keyword not in GROUPS})
    frames = []
    for index, own in enumerate(tags[GROUPS[1]]):
        frame = Dataset()
        frame.update(common)
        for group in (*(tags.get(GROUPS[0]) or ()), own):
            for element in group:
                frame.update(element.value[0] if element.VR == "SQ" and element.value else {})
        frames.append(Frame(path, sha256, frame, index))
    return frames


def choose_series(path: Path, frames: list[Frame], series: str | None) -> list[Frame]:
    by_uid = {}
    for frame in frames:
        by_uid.setdefault(str(frame.tags.get("SeriesInstanceUID") or ""), []).append(frame)
    listed = ", ".join(
        f"{uid or 'no UID'} ({_description(some)}{len(some)} images)"
        for uid, some in by_uid.items()
    )
    if not frames:
        raise InputError(f"{path}: holds no DICOM images; give the folder of one scan")
    if series is not None:
        if series not in by_uid:
            raise InputError(f"{path}: has no series {series}; --series takes one of: {listed}")
        return by_uid[series]
    images = [
        some
        for some in by_uid.values()
        if some[0].tags.get("Modality") != "SEG" and not all(map(is_localizer, some))
    ] or list(by_uid.values())
    if len(images) > 1:
        raise InputError(
            f"{path}: has {len(by_uid)} series; choose one with --series UID: {listed}"
        )
    return images[0]


def _description(frames: list[Frame]) -> str:
    text = str(frames[0].tags.get("SeriesDescription") or "")
    text = "".join(character for character in text if character.isprintable())
    return f"{text}, " if text else ""


def is_localizer(frame: Frame) -> bool:
    return "LOCALIZER" in (frame.tags.get("ImageType") or ())
