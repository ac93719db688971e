"""A folder of phantoms, and the record of how they were made and which of them are finished."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import replacing, sha256_of
from sam_lungs.utils.provenance import difference

RECORD_NAME = "phantoms.json"
FOLDERS = ("CT", "Lung_Mask")
REMEDY = "add --overwrite to make them anew, or choose another --output_folder"


class PhantomFolder:
    """Pairs of an image and its masks, laid out like the real dataset."""

    def __init__(self, folder: Path, made_of: Mapping[str, object], overwrite: bool) -> None:
        """Open a folder, or begin one.

        made_of: all that decides the voxels, as JSON holds it. overwrite: first remove the phantoms
            that are there.

        Raises `InputError` when its phantoms were made of something else, its record is damaged,
        or it cannot be written.
        """
        self._folder = folder
        self._made_of = made_of
        if overwrite:
            self._remove_phantoms()
        self._sha256 = self._read_record()

    def missing(self, cases: int) -> list[int]:
        """Return the numbers of the pairs, of 1 to `cases`, that are not there or damaged."""
        return [
            case
            for case in range(1, cases + 1)
            if not all(self._is_intact(name) for name in _names(case))
        ]

    def write(self, case: int, contents: Sequence[bytes]) -> None:
        """Write a pair: the bytes of the `.nii.gz` of the image, and of the masks.

        Raises `InputError` when it cannot be written.
        """
        for name, content in zip(_names(case), contents, strict=True):
            _write(self._folder / name, content)
            self._sha256[name] = hashlib.sha256(content).hexdigest()
        self._write_record()

    def _is_intact(self, name: str) -> bool:
        path = self._folder / name
        return name in self._sha256 and path.exists() and sha256_of(path) == self._sha256[name]

    def _read_record(self) -> dict[str, str]:
        """Return the SHA-256 of each file that is finished, by its name."""
        path = self._folder / RECORD_NAME
        if not path.exists():
            if self._phantoms():
                raise InputError(
                    f"{self._folder}: has phantoms but no {RECORD_NAME} that says how; {REMEDY}"
                )
            self._sha256 = {}
            self._write_record()
            return {}
        try:
            record = json.loads(path.read_bytes())
            there, sha256 = dict(record["made_of"]), dict(record["sha256"])
        except OSError as error:
            raise InputError(
                f"{path}: cannot be read ({error.strerror}); check the path"
            ) from error
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(f"{path}: damaged, so nobody knows its phantoms; {REMEDY}") from error
        if there != self._made_of:
            said = difference(there, self._made_of)
            raise InputError(f"{self._folder}: has other phantoms ({said}); {REMEDY}")
        return sha256

    def _write_record(self) -> None:
        record = {"made_of": self._made_of, "sha256": dict(sorted(self._sha256.items()))}
        _write(self._folder / RECORD_NAME, (json.dumps(record, indent=2) + "\n").encode())

    def _phantoms(self) -> list[Path]:
        return [path for name in FOLDERS for path in (self._folder / name).glob("phantom_*.nii.gz")]

    def _remove_phantoms(self) -> None:
        """The record goes last, so that a kill leaves no phantom that is not recorded."""
        try:
            for path in (*self._phantoms(), self._folder / RECORD_NAME):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise InputError(f"{path}: cannot be removed ({error.strerror})") from error


def _names(case: int) -> list[str]:
    return [f"{folder}/phantom_{case:03d}.nii.gz" for folder in FOLDERS]


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
