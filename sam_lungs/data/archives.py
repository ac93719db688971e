"""Unpack the files of a downloaded zip archive; an interrupted call is resumed by the next."""

import shutil
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import atomic_write, locked_folder
from sam_lungs.utils.progress import Progress

# Of all files to unpack, several times the paper's datasets.
MAX_UNPACKED_BYTES = 4 << 30
# Others decompress a block without a limit.
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


@contextmanager
def opened(archive: Path) -> Iterator[zipfile.ZipFile]:
    """Open a zip archive; raises `InputError` when it is none, also for a damaged entry."""
    try:
        with zipfile.ZipFile(archive) as file:
            yield file
    except (InputError, OSError, MemoryError):
        raise
    except Exception as error:  # a damaged archive raises almost any type
        reason = " ".join(str(error).split())
        raise InputError(
            f"{archive}: not a valid zip archive ({reason}); delete it and run the same command"
            " again"
        ) from error


def unpack(
    archive: zipfile.ZipFile, entries: Mapping[Path, zipfile.ZipInfo], folder: Path, unit: str
) -> None:
    """Write the entries of an archive that are missing, or have another size on the disk.

    entries: where each is written, below `folder`, which is locked meanwhile. The names in the
        archive are not used. The sizes that it claims are kept, and CRCs are checked.
    unit: of the progress, such as `file`.

    Raises `InputError` when another process unpacks into the folder, it cannot be written, or the
    entries are larger than `MAX_UNPACKED_BYTES` or compressed in an unusual way. A damaged entry
    raises as in `opened`.
    """
    missing = {
        path: entry
        for path, entry in entries.items()
        if not (path.is_file() and path.stat().st_size == entry.file_size)
    }
    if not missing:
        return
    size = sum(entry.file_size for entry in entries.values())
    is_usual = all(entry.compress_type in METHODS for entry in missing.values())
    if size > MAX_UNPACKED_BYTES or not is_usual:
        raise InputError(
            f"{archive.filename}: "
            + (f"{size:,} bytes unpacked" if is_usual else "an unusual compression")
            + ", so it is not the published archive; delete it and run the same command again"
        )
    with locked_folder(folder), Progress(folder.name, len(missing), unit=unit) as progress:
        for path, entry in missing.items():
            # In blocks: `read` decompresses all of an entry before it is cut to its claimed size.
            with (
                atomic_write(path) as temporary,
                archive.open(entry) as source,
                open(temporary, "wb") as target,
            ):
                shutil.copyfileobj(source, target)
            progress.update()
