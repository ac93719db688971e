"""A folder of phantoms, and its record: the settings that made them and the finished files."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import atomic_write, remove, sha256_of
from sam_lungs.utils.provenance import difference

RECORD_NAME = "phantoms.json"
FOLDERS = ("CT", "Lung_Mask")
REMEDY = "add --overwrite to replace them, or choose another --output_folder"


class PhantomFolder:
    """Pairs of an image and its masks, laid out like the real dataset."""

    def __init__(self, folder: Path, made_of: Mapping[str, object], overwrite: bool) -> None:
        """Open a folder, or start one.

        made_of: JSON values of all that decides the voxels. overwrite: first remove the phantoms
            of the folder.

        Raises `InputError` when the phantoms were made with other settings, when the record is
        damaged, and when the folder cannot be written.
        """
        self._folder, self._made_of = folder, made_of
        self._record_path = folder / RECORD_NAME
        phantoms = [path for name in FOLDERS for path in (folder / name).glob("phantom_*.nii.gz")]
        if overwrite:
            # The record goes last: after a kill every phantom still has a record.
            for path in (*phantoms, self._record_path):
                remove(path)
        elif phantoms and not self._record_path.exists():
            raise InputError(
                f"{folder}: has phantoms but no {RECORD_NAME} with their settings; {REMEDY}"
            )
        self._sha256 = {}  # of each finished file, by its name
        if self._record_path.exists():
            self._sha256 = self._read_record()
        else:
            self._write_record()

    def missing(self, cases: int) -> list[int]:
        """Return the numbers, from 1 to `cases`, of the pairs that are missing or damaged."""
        return [
            case
            for case in range(1, cases + 1)
            if not all(self._is_intact(name) for name in _names(case))
        ]

    def write(self, case: int, contents: Sequence[bytes]) -> None:
        """Write a pair; contents: the bytes of the `.nii.gz` files of the image and the masks.

        Raises `InputError` when a file cannot be written.
        """
        for name, content in zip(_names(case), contents, strict=True):
            _write(self._folder / name, content)
            self._sha256[name] = hashlib.sha256(content).hexdigest()
        self._write_record()

    def _is_intact(self, name: str) -> bool:
        path = self._folder / name
        return name in self._sha256 and path.exists() and sha256_of(path) == self._sha256[name]

    def _read_record(self) -> dict[str, str]:
        try:
            record = json.loads(self._record_path.read_bytes())
            made_of, sha256 = dict(record["made_of"]), dict(record["sha256"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{self._record_path}: damaged or not readable; {REMEDY}") from error
        if made_of != self._made_of:
            differing = difference(made_of, self._made_of)
            raise InputError(f"{self._folder}: has other phantoms ({differing}); {REMEDY}")
        return sha256

    def _write_record(self) -> None:
        record = {"made_of": self._made_of, "sha256": dict(sorted(self._sha256.items()))}
        _write(self._record_path, (json.dumps(record, indent=2) + "\n").encode())


def _names(case: int) -> list[str]:
    return [f"{folder}/phantom_{case:03d}.nii.gz" for folder in FOLDERS]


def _write(path: Path, content: bytes) -> None:
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)
