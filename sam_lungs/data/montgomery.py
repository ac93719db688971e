"""The paper's second dataset: download 138 chest X-rays and their lung masks, and unpack them.

python -m sam_lungs.data.montgomery

Montgomery County chest X-ray set, Jaeger et al., Quantitative Imaging in Medicine and Surgery 2014,
doi 10.3978/j.issn.2223-4292.2014.11.20.
"""

from dataclasses import dataclass
from pathlib import Path

from sam_lungs.data.archives import opened, unpack
from sam_lungs.utils.cli import option, parse_options, run_script
from sam_lungs.utils.download import download
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import atomic_write, read_text, sha256_of
from sam_lungs.utils.text import count

ARCHIVE = "NLM-MontgomeryCXRSet.zip"
URL = f"https://openi.nlm.nih.gov/imgs/collections/{ARCHIVE}"
# The publisher names no SHA-256. This one is in torch-em, in data/datasets/medical/montgomery.py.
TORCH_EM_SHA256 = "54601e952315d8f67383e9202a6e145997ade429f54f7e0af44b4e158714f424"
FOLDERS = ("CXR_png", "ManualMask/leftMask", "ManualMask/rightMask")
# Numbers of the X-rays that the paper uses: normal, and with signs of tuberculosis.
NORMAL = """
    0001 0002 0003 0004 0005 0006 0008 0011 0013 0015 0016 0017 0019 0020 0021 0022 0023 0024
    0026 0027 0028 0029 0030 0031 0035 0038 0040 0041 0042 0043 0044 0045 0046 0047 0048 0049
    0051 0052 0053 0054 0055 0056 0057 0058 0059 0060 0061 0062 0063 0064 0068 0069 0070 0071
    0072 0074 0075 0077 0079 0080 0081 0082 0083 0084 0085 0086 0087 0089 0090 0091 0092 0094
    0095 0096 0097 0099 0100 0101 0102 0103
"""
TUBERCULOSIS = """
    0104 0108 0113 0117 0126 0140 0141 0142 0144 0150 0162 0166 0170 0173 0182 0188 0194 0195
    0196 0203 0213 0218 0223 0228 0243 0251 0253 0254 0255 0258 0264 0266 0275 0282 0289 0294
    0301 0309 0311 0313 0316 0331 0334 0338 0348 0350 0352 0354 0362 0367 0369 0372 0375 0383
    0387 0390 0393 0399
"""
CASES = (
    *(f"MCUCXR_{number}_0" for number in NORMAL.split()),
    *(f"MCUCXR_{number}_1" for number in TUBERCULOSIS.split()),
)
# In the archive, and below the folder of the dataset.
FILES = tuple(f"MontgomerySet/{folder}/{case}.png" for folder in FOLDERS for case in CASES)

DATASET_FOLDER = Path(__file__).resolve().parents[2] / "datasets" / "montgomery"


@dataclass(frozen=True)
class Options:
    mirror: str | None = option(
        f"URL of a folder on another server, http or https, with {ARCHIVE}",
        None,
        group="download",
        metavar="URL",
    )


def fetch(folder: Path = DATASET_FOLDER, mirror: str | None = None) -> None:
    """Download and unpack the X-rays and lung masks that are missing in `folder`.

    The SHA-256 of the first archive that is unpacked completely is recorded beside it, as
    `sha256sum` writes it; later archives must have the same. Files that are missing or have another
    size than in the archive are unpacked again. Without the archive, a folder with all files counts
    as complete.
    mirror: see `sam_lungs.utils.download.download`.

    Raises `InputError` when the download fails, the archive is another one than recorded, is
    damaged, or does not hold every file, and when a folder cannot be written.
    """
    archive = folder / ARCHIVE
    try:
        if not archive.exists() and not all((folder / name).is_file() for name in FILES):
            script = "scripts/download_dataset.sh montgomery"
            download(URL, archive, sha256=None, mirror=mirror, script=script)
        if archive.exists():
            _use(archive)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read ({error.strerror}); check the path") from error


def main() -> None:
    command = "python -m sam_lungs.data.montgomery"
    description = f"Download the paper's chest X-rays and lung masks into {DATASET_FOLDER}."
    fetch(mirror=parse_options(Options, description, command, prog=command).mirror)
    print(f"{DATASET_FOLDER} holds the {len(CASES)} X-rays and their lung masks")


def _use(archive: Path) -> None:
    """Unpack the archive after a check of its SHA-256, or record it."""
    folder, record = archive.parent, archive.with_name(f"{archive.name}.sha256")
    sha256 = sha256_of(archive)
    line = f"{sha256}  {archive.name}\n"
    is_recorded = record.exists()
    if is_recorded and read_text(record) != line:
        raise InputError(
            f"{archive}: another archive (SHA-256 {sha256}) than the first one, which {record.name}"
            " names; delete it and run the same command again, or delete both to accept another"
        )
    with opened(archive) as file:
        held = set(file.namelist())
        if absent := [name for name in FILES if name not in held]:
            raise InputError(
                f"{archive}: not the archive of the X-rays, because it lacks"
                f" {count(len(absent), 'file')}, such as {absent[0]}; delete it and run the same"
                " command again"
            )
        unpack(file, {folder / name: file.getinfo(name) for name in FILES}, folder, unit="file")
    if not is_recorded:
        with atomic_write(record) as temporary:
            temporary.write_text(line)
        known = "the same" if sha256 == TORCH_EM_SHA256 else f"another, {TORCH_EM_SHA256}"
        print(
            f"{archive}: its publisher names no SHA-256, so {sha256} is recorded in {record.name};"
            f" later archives must have the same (the project torch-em names {known})"
        )


if __name__ == "__main__":
    run_script(main)
