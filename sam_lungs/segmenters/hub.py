"""Models of huggingface.co: a folder for each revision, with the SHA-256 of its files.

HF_ENDPOINT (a mirror), HF_HUB_OFFLINE and the login of `hf auth login` are honoured.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from sam_lungs.segmenters.presets import Preset, folder_name
from sam_lungs.utils.download import locked
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import atomic_write, sha256_of

PATTERNS = (".json", ".safetensors")
RECORD = "fetched.json"


def folder_of(name: str, preset: Preset, checkpoints_folder: Path) -> Path:
    """Return the folder of a model; it exists when all files are fetched.

    Without a known revision it is the folder of the revision that was fetched first.

    name: see `presets.parse_model`. preset: its repository, and its revision if that is known.
    """
    stem = folder_name(name).partition("@")[0]
    if preset.revision:
        return checkpoints_folder / f"{stem}@{preset.revision}"
    found = sorted(checkpoints_folder.glob(f"{stem}@*"), key=lambda p: (p.suffix == ".part", p))
    return checkpoints_folder / (found[0].name.removesuffix(".part") if found else f"{stem}@")


def fetch(name: str, preset: Preset, checkpoints_folder: Path) -> Path:
    """Return the folder of a model; fetch its JSON files and safetensors if it does not exist.

    An interrupted fetch is resumed. If another process is fetching it, this one waits. Files that
    the hub lists with a SHA-256 are verified. Arguments as for `folder_of`.

    Raises `InputError` when the hub cannot be reached, does not give the files or gives others, and
    when `huggingface_hub` is not installed.
    """
    folder = folder_of(name, preset, checkpoints_folder)
    if folder.exists():
        return folder
    require("huggingface_hub", name)
    from huggingface_hub import HfApi

    repository, (stem, _, revision) = preset.repository, folder.name.partition("@")
    hub = HfApi(endpoint=os.environ.get("HF_ENDPOINT", "").rstrip("/") or None)
    with _one_line(repository, revision, checkpoints_folder):
        info = hub.model_info(repository, revision=revision or None, files_metadata=True)
    listed = {
        each.rfilename: each.lfs
        for each in info.siblings
        if each.rfilename.endswith(PATTERNS) and "/" not in each.rfilename
    }
    if not any(file_name.endswith(".safetensors") for file_name in listed):
        raise InputError(
            f"{repository}: revision {info.sha} holds no safetensors, and pickled weights may run"
            " code; use a revision or a repository with safetensors"
        )
    if not revision:
        print(f"{name}: no revision is fixed; this and later runs use {info.sha}")
    folder = checkpoints_folder / f"{stem}@{info.sha}"
    part = folder.with_name(f"{folder.name}.part")
    with _one_line(repository, revision, checkpoints_folder):
        checkpoints_folder.mkdir(parents=True, exist_ok=True)
        with locked(part):
            if not folder.exists():  # another process may have fetched it
                hub.snapshot_download(
                    repository,
                    revision=info.sha,
                    local_dir=part,
                    allow_patterns=[f"*{suffix}" for suffix in PATTERNS],
                    ignore_patterns=["*/*"],
                )
                hashes = {name: sha256_of(part / name) for name in sorted(listed)}
                known = {name: lfs.sha256 for name, lfs in listed.items() if lfs} | preset.sha256
                _check_published(part, hashes, known)
                content = {"repository": repository, "revision": info.sha, "sha256": hashes}
                with atomic_write(part / RECORD) as temporary:
                    temporary.write_text(json.dumps(content, indent=2) + "\n")
                os.replace(part, folder)
    return folder


def _check_published(folder: Path, hashes: dict[str, str], known: dict[str, str]) -> None:
    for name, sha256 in hashes.items():
        if sha256 != known.get(name, sha256):
            (folder / name).unlink()
            raise InputError(
                f"{folder / name}: the fetched file is not the published one (SHA-256 {sha256}"
                f" instead of {known[name]}) and has been deleted; run the same command again to"
                " fetch it again"
            )


def recorded(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of the files of a fetched folder, by name.

    Raises `InputError` when the record cannot be read.
    """
    path = folder / RECORD
    try:
        return dict(json.loads(path.read_bytes())["sha256"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: not a record of fetched files; delete {folder} to fetch it again, or use it"
            " with --model_folder"
        ) from error


def require(package: str, wanted_by: object) -> None:
    """Raise `InputError` when a package of the extra `models` is not installed."""
    if find_spec(package) is None:
        raise InputError(f"{wanted_by}: needs {package}; install it with: pip install '.[models]'")


@contextmanager
def _one_line(repository: str, revision: str | None, folder: Path) -> Iterator[None]:
    """Turn every error of `huggingface_hub` into a one-line `InputError`."""
    from huggingface_hub import errors

    try:
        yield
    except InputError:
        raise
    except errors.GatedRepoError as error:
        raise InputError(
            f"{repository}: its owner grants access on request; ask at"
            f" https://huggingface.co/{repository}, then run: hf auth login"
        ) from error
    except errors.RevisionNotFoundError as error:
        raise InputError(
            f"{repository}: has no revision {revision}; copy one from"
            f" https://huggingface.co/{repository}/commits/main"
        ) from error
    except errors.RepositoryNotFoundError as error:
        raise InputError(
            f"{repository}: is not on the hub, or not public; check the name, or run: hf auth login"
        ) from error
    except Exception as error:  # of the network, the hub or the disk
        reason = " ".join(str(error).split())
        raise InputError(
            f"{repository}: cannot be fetched ({reason:.120}); run the same command again to"
            " resume, or set HF_ENDPOINT to the URL of a mirror of https://huggingface.co, or run"
            " it on a machine with network and copy what it adds to its checkpoints folder to"
            f" {folder}"
        ) from error
