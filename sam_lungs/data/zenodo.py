"""The paper's dataset: download 20 CT volumes and their lung masks from Zenodo, and unpack them.

python -m sam_lungs.data.zenodo
"""

from dataclasses import dataclass
from pathlib import Path

from sam_lungs.data.archives import opened, unpack
from sam_lungs.utils.cli import option, parse_options, run_script
from sam_lungs.utils.download import download, naming_others
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import sha256_of
from sam_lungs.utils.text import count

RECORD_URL = "https://zenodo.org/record/3757476/files"
# Name of each archive and of its folder, and the SHA-256 of the archive.
ARCHIVES = {
    "COVID-19-CT-Seg_20cases": "a5060480eff9315b069b086312dac4872777901fb80d268a5a83edd9f4e7b440",
    "Lung_Mask": "f060b0d0299939a6d95ddefdbfa281de1a779c4d230a5adbd32414711d6d8187",
}
VOLUMES = 20
# Names of the files, without suffix; a volume and its masks have the same name.
PAPER_VOLUMES = (
    "coronacases_001",
    "coronacases_002",
    "coronacases_003",
    "coronacases_004",
    "coronacases_005",
    "coronacases_006",
    "coronacases_007",
    "coronacases_008",
    "coronacases_009",
    "coronacases_010",
    "radiopaedia_10_85902_1",
    "radiopaedia_10_85902_3",
    "radiopaedia_14_85914_0",
    "radiopaedia_27_86410_0",
    "radiopaedia_29_86490_1",
    "radiopaedia_29_86491_1",
    "radiopaedia_36_86526_0",
    "radiopaedia_40_86625_0",
    "radiopaedia_4_85506_1",
    "radiopaedia_7_85703_0",
)

SCRIPT = "scripts/download_dataset.sh"
DATASET_FOLDER = Path(__file__).resolve().parents[2] / "datasets" / "zenodo"


@dataclass(frozen=True)
class Options:
    mirror: str | None = option(
        "URL of a folder on another server, http or https, with the official file names; hashes are"
        " checked in any case",
        None,
        group="download",
        metavar="URL",
    )


def fetch(folder: Path = DATASET_FOLDER, mirror: str | None = None) -> None:
    """Download and unpack the volumes and lung masks that are missing in `folder`.

    An archive that is in `folder` must be the published one; volumes that are missing or differ
    from it in size are unpacked again. Without the archive, 20 volumes count as complete.
    mirror: see `sam_lungs.utils.download.download`.

    Raises `InputError` when a download fails, an archive is not the published one, a folder cannot
    be written or does not hold 20 volumes.
    """
    try:
        for name, sha256 in ARCHIVES.items():
            others = [
                _url(each) for each in ARCHIVES if each != name and _is_missing(folder / each)
            ]
            with naming_others(others):
                _fetch(folder / name, sha256, mirror)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); check the path") from error


def main() -> None:
    command = "python -m sam_lungs.data.zenodo"
    description = f"Download the paper's CT volumes and lung masks into {DATASET_FOLDER}."
    fetch(mirror=parse_options(Options, description, command, prog=command).mirror)
    print(f"{DATASET_FOLDER} holds the {VOLUMES} volumes and their lung masks")


def _fetch(folder: Path, sha256: str, mirror: str | None) -> None:
    """Download and unpack the archive of `folder` if needed."""
    archive = folder.with_name(f"{folder.name}.zip")
    if _is_missing(folder):
        download(_url(folder.name), archive, sha256, mirror=mirror, script=SCRIPT)
    if archive.exists():
        held_sha256 = sha256_of(archive)
        if held_sha256 != sha256:
            raise InputError(
                f"{archive}: not the published archive (SHA-256 {held_sha256}); delete it and run"
                " the same command again"
            )
        with opened(archive) as file:
            entries = {folder / Path(entry.filename).name: entry for entry in file.infolist()}
            volumes = {path: entry for path, entry in entries.items() if _is_volume(path.name)}
            unpack(file, volumes, folder, unit="volume")
    if (found := _count(folder)) != VOLUMES:
        raise InputError(
            f"{folder}: holds {count(found, 'volume')} instead of {VOLUMES}; delete it and run the"
            " same command again"
        )


def _url(name: str) -> str:
    return f"{RECORD_URL}/{name}.zip"


def _is_missing(folder: Path) -> bool:
    """Whether neither the archive of a folder nor its volumes are there."""
    return not folder.with_name(f"{folder.name}.zip").exists() and _count(folder) != VOLUMES


def _count(folder: Path) -> int:
    return sum(_is_volume(path.name) for path in folder.glob("*"))


def _is_volume(name: str) -> bool:
    return name.endswith(".nii.gz") and not name.startswith(".")  # macOS adds hidden files


if __name__ == "__main__":
    run_script(main)
