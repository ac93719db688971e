"""The study's dataset: 20 CT volumes and their lung masks, from Zenodo into datasets/zenodo/.

Download and unpack it with `python -m sam_lungs.data.zenodo`.
"""

import argparse
import shutil
import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from sam_lungs.utils.download import add_mirror_option, download
from sam_lungs.utils.errors import InputError, run_script
from sam_lungs.utils.files import replacing, sha256_of
from sam_lungs.utils.progress import Progress

RECORD_URL = "https://zenodo.org/record/3757476/files"
# The SHA-256 of each archive, which is named as its folder.
ARCHIVES = {
    "COVID-19-CT-Seg_20cases": "a5060480eff9315b069b086312dac4872777901fb80d268a5a83edd9f4e7b440",
    "Lung_Mask": "f060b0d0299939a6d95ddefdbfa281de1a779c4d230a5adbd32414711d6d8187",
}
VOLUMES = 20
MAX_VOLUME_BYTES = 1 << 30  # as .nii.gz; all 20 together have about 1 GB
ENCRYPTED = 1  # a flag of a zip file's entry

DATASET_FOLDER = Path(__file__).resolve().parents[2] / "datasets" / "zenodo"


def fetch(folder: Path = DATASET_FOLDER, mirror: str | None = None) -> None:
    """Have the volumes and the lung masks in `folder`, downloading and unpacking what is missing.

    Where an archive is there, it must be the published one, and volumes that differ from its in
    size are unpacked again. Without it a folder of 20 volumes is taken to be complete. How archives
    are downloaded, and what `mirror` is, `sam_lungs.utils.download.download` says.

    Raises `InputError` when a download fails, an archive is not the published one or unsafe to
    unpack, a folder cannot be written or holds other than 20 volumes, or when names differ.
    """
    try:
        names = [_fetch(folder / name, sha256, mirror) for name, sha256 in ARCHIVES.items()]
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); check the path") from error
    if names[0] != names[1]:
        raise InputError(
            f"{folder}: the volumes and the lung masks differ in their names: delete both folders "
            "and run the same command again"
        )


def main() -> None:
    """Fetch the dataset."""
    parser = argparse.ArgumentParser(
        prog="python -m sam_lungs.data.zenodo",
        description=f"Download the study's CT volumes and lung masks into {DATASET_FOLDER}.",
    )
    add_mirror_option(parser)
    fetch(mirror=parser.parse_args().mirror)
    print(f"{DATASET_FOLDER} holds the {VOLUMES} volumes and their lung masks")


def _fetch(folder: Path, sha256: str, mirror: str | None) -> set[str]:
    """Have the volumes of one archive in `folder`; return their names."""
    archive = folder.with_name(f"{folder.name}.zip")
    if not archive.exists() and len(_names(folder)) != VOLUMES:
        download(f"{RECORD_URL}/{archive.name}", archive, sha256, mirror=mirror)
    if archive.exists():
        held_sha256 = sha256_of(archive)
        if held_sha256 != sha256:
            raise InputError(
                f"{archive}: is not the published archive (SHA-256 {held_sha256}): delete it and "
                "run the same command again"
            )
        _unpack(archive, folder)
    names = _names(folder)
    if len(names) != VOLUMES:
        raise InputError(
            f"{folder}: holds {len(names)} volumes instead of {VOLUMES}: delete it and run the "
            "same command again"
        )
    return names


def _names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.nii.gz") if not path.name.startswith(".")}


def _unpack(archive: Path, folder: Path) -> None:
    """Bring the volumes of an archive into a folder, those excepted that have their size there."""
    try:
        with zipfile.ZipFile(archive) as opened:
            entries = {folder / name: entry for name, entry in _volumes(opened).items()}
            missing = {
                path: entry
                for path, entry in entries.items()
                if not path.is_file() or path.stat().st_size != entry.file_size
            }
            done = len(entries) - len(missing)
            with Progress(folder.name, len(entries), done, unit="volume") as progress:
                for path, entry in missing.items():
                    with (
                        replacing(path) as temporary,
                        opened.open(entry) as source,
                        open(temporary, "wb") as target,
                    ):
                        shutil.copyfileobj(source, target)  # which checks the CRC at the end
                    progress.update()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise InputError(
            f"{archive}: cannot be unpacked ({error}): delete it and run the same command again"
        ) from error


def _volumes(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Return the entries of an archive that are volumes, by the names that they get.

    Raises `zipfile.BadZipFile` when there are not 20, or for an entry that is unsafe to unpack.
    """
    volumes = {}
    for entry in archive.infolist():
        path = PurePosixPath(entry.filename)
        if path.is_absolute() or ".." in path.parts or "\\" in entry.filename:
            raise zipfile.BadZipFile(f"{entry.filename!r} leaves the folder")
        if stat.S_IFMT(entry.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise zipfile.BadZipFile(f"{entry.filename!r} is a link or no regular file")
        # Folders and hidden files are what a Mac adds, and so is a copy of each in __MACOSX.
        name = path.name
        hidden = name.startswith(".") or "__MACOSX" in path.parts
        if entry.is_dir() or hidden or not name.endswith(".nii.gz"):
            continue
        if name in volumes:
            raise zipfile.BadZipFile(f"{name!r} is there twice")
        # Other compressions have no limit on what one block becomes in memory.
        known = entry.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
        if not known or entry.flag_bits & ENCRYPTED or entry.file_size > MAX_VOLUME_BYTES:
            raise zipfile.BadZipFile(
                f"{name!r} has {entry.file_size:,} bytes, at most {MAX_VOLUME_BYTES:,} are "
                "unpacked, or is compressed or encrypted in a way that is not"
            )
        volumes[name] = entry
    if len(volumes) != VOLUMES:
        raise zipfile.BadZipFile(f"{len(volumes)} volumes instead of {VOLUMES}")
    return volumes


if __name__ == "__main__":
    run_script(main)
