"""Where the files of a case are, and how they are read.

The command line needs this module, so it imports no reader: nibabel alone takes half a second.
"""

from dataclasses import dataclass
from pathlib import Path

from sam_lungs.data.names import case_name

ALIGNMENTS = ("auto", "affine", "voxels")
# Names of the faults that `--allow` accepts.
FAULTS = (
    "saturated",
    "orientation",
    "not_image",
    "not_masks",
    "ignore_label",
    "missing_label",
    "overlap",
)


@dataclass(frozen=True)
class Reading:
    """How the files of a case are read.

    window: see `choose_window`. align: see `align_masks`. objects: name -> labels, see
    `select_objects`; `None`: every label is an object. spacing_mm: of rows, columns, and slices if
    there are several, for files without a spacing. series: SeriesInstanceUID of a folder of DICOM
    files. allow: names of faults to accept, of `FAULTS`.
    """

    window: str = "auto"
    align: str = "auto"
    objects: dict[str, tuple[int, ...]] | None = None
    spacing_mm: tuple[float, ...] | None = None
    series: str | None = None
    allow: tuple[str, ...] = ()


@dataclass(frozen=True)
class CaseFiles:
    """Where the files of a case are, and how they are read.

    image_path: a file, or a folder of DICOM files; None to score masks without their image.
    masks_paths: one label volume, or several files, of which file i, from 1, becomes label i; none
    with prompts of a file. given_name, patient, subset: from a dataset file, as
    is root, the folder of the dataset. structures: what the masks files are, if it says so.
    """

    image_path: Path | None
    masks_paths: tuple[Path, ...]
    reading: Reading = Reading()
    given_name: str | None = None
    root: Path | None = None
    patient: str | None = None
    subset: str | None = None
    structures: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of the case, and of its results folder."""
        return self.given_name or case_name(self.path).removeprefix("masks_")

    @property
    def path(self) -> Path:
        """The image, or without one the first masks file."""
        return self.image_path or self.masks_paths[0]
