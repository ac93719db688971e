"""SAM's weights: where they come from, and how they get from there into a model.

Download and verify them with `python -m sam_lungs.checkpoints vit_b vit_l vit_h`.
"""

import argparse
import os
import shutil
import sys
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from sam_lungs.errors import InputError, run_script
from sam_lungs.files import sha256_of

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

CHECKPOINTS_FOLDER = Path(__file__).resolve().parent.parent / "checkpoints"
TIMEOUT_SECONDS = 60


@dataclass(frozen=True)
class Checkpoint:
    """A file of SAM weights, and what tells it from any other file.

    `name` is its architecture, `url` where it is published, or the bare name of a file that comes
    with this code, `sha256` is lower-case hexadecimal, and `encoder_width` is the number of
    channels of the image encoder's tokens, by which the architectures differ.
    """

    name: str
    url: str
    size_bytes: int
    sha256: str
    encoder_width: int

    @property
    def file_name(self) -> str:
        """The file's official name, the last part of its URL."""
        return self.url.rpartition("/")[2]

    @property
    def is_published(self) -> bool:
        """Whether it can be downloaded."""
        return "://" in self.url

    @property
    def remedy(self) -> str:
        """How to have a file in place that is not the official one replaced."""
        if self.is_published:
            return "delete it to download it again"
        return f"restore it with: git checkout -- {CHECKPOINTS_FOLDER.name}/{self.file_name}"


# The links are those of https://github.com/facebookresearch/segment-anything#model-checkpoints.
CHECKPOINTS = {
    checkpoint.name: checkpoint
    for checkpoint in (
        Checkpoint(
            name="vit_b",
            url="https://dl.fbaipublicfiles.com/segment_anything/sam_vit_b_01ec64.pth",
            size_bytes=375_042_383,
            sha256="ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912",
            encoder_width=768,
        ),
        Checkpoint(
            name="vit_l",
            url="https://dl.fbaipublicfiles.com/segment_anything/sam_vit_l_0b3195.pth",
            size_bytes=1_249_524_607,
            sha256="3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622",
            encoder_width=1024,
        ),
        Checkpoint(
            name="vit_h",
            url="https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth",
            size_bytes=2_564_550_879,
            sha256="a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e",
            encoder_width=1280,
        ),
        # Trained on phantoms: `sam_lungs.training`, checkpoints/sam_compact.md.
        Checkpoint(
            name="compact",
            url="sam_compact.pth",
            size_bytes=2_292_459,
            sha256="552aefb42baeacd5926f5b08e6cac52cf3c3aa72daf50d3b16711868886d9524",
            encoder_width=96,
        ),
    )
}


def fetch(name: str, folder: Path = CHECKPOINTS_FOLDER) -> Path:
    """Return the path of checkpoint `name` in `folder`, downloading it first if it is not there.

    A download is checked by SHA-256 before it takes its final name, and one that was interrupted
    continues where it stopped. Of a file that is already there only the size is checked: hashing
    a gigabyte is left to the caller, see `verify`.

    Raises `InputError` when the download fails, stops or brings other bytes than the official
    ones, when the file that is there has another size, or when the folder cannot be written.
    """
    checkpoint = CHECKPOINTS[name]
    path = folder / checkpoint.file_name
    try:
        if not path.exists():
            if not checkpoint.is_published:
                raise InputError(f"{path}: no such file; {checkpoint.remedy}")
            folder.mkdir(parents=True, exist_ok=True)
            _download(checkpoint, path)
        held_bytes = path.stat().st_size
    except OSError as error:
        raise InputError(f"{path}: cannot be fetched ({error})") from error
    if held_bytes != checkpoint.size_bytes:
        raise InputError(
            f"{path}: has {held_bytes:,} bytes where the official {name} checkpoint has "
            f"{checkpoint.size_bytes:,}: {checkpoint.remedy}"
        )
    return path


def verify(name: str, path: Path, sha256: str) -> None:
    """Raise `InputError` unless `sha256`, that of the fetched file at `path`, is the official one.

    The hash is passed in, not computed, because a caller that records it has it already.
    """
    checkpoint = CHECKPOINTS[name]
    if sha256 != checkpoint.sha256:
        raise InputError(
            f"{path}: is not the official {name} checkpoint (SHA-256 {sha256}): "
            f"{checkpoint.remedy}, or name it with --checkpoint to use it as it is"
        )


def load_sam(name: str, path: Path) -> "Sam":
    """Return SAM of the architecture `name` with the weights of the file at `path`.

    The model is in float32 on the CPU, in evaluation mode, and without gradients. No code that
    the file may hold is run.

    Raises `InputError` when the file cannot be read, is no PyTorch file of plain tensors, or
    holds anything but exactly this architecture's parameters.
    """
    # Imported here because torch takes seconds, which fetching need not wait for.
    import torch
    from segment_anything import sam_model_registry

    from sam_lungs.compact import build_compact

    try:
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    except Exception as error:  # a broken file raises almost any type
        raise InputError(
            f"{path}: is not a PyTorch file of plain tensors, or not all of one: download it again"
        ) from error

    held_shapes = _shapes(weights) if isinstance(weights, dict) else {}
    held_width = held_shapes.get("image_encoder.patch_embed.proj.weight", ())[:1]
    held_names = [c.name for c in CHECKPOINTS.values() if held_width == (c.encoder_width,)]
    if not held_names:
        raise InputError(f"{path}: holds no SAM weights: name a SAM checkpoint with --checkpoint")
    if held_names != [name]:
        raise InputError(
            f"{path}: holds {held_names[0]} weights, not {name}: pass --model {held_names[0]}"
        )

    with torch.device("meta"):  # which spends neither memory nor time on random weights
        sam = build_compact() if name == "compact" else sam_model_registry[name]()
    misfits = sorted({key for key, _ in held_shapes.items() ^ _shapes(sam.state_dict()).items()})
    if misfits:
        raise InputError(
            f"{path}: does not fit {name} (missing, unexpected or of another shape: {len(misfits)} "
            f"parameters, the first {misfits[0]}): name a checkpoint of the original SAM"
        )
    sam.load_state_dict(weights, assign=True)
    return sam.float().eval().requires_grad_(False)


def main() -> None:
    """Fetch and verify the checkpoints named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sam_lungs.checkpoints",
        description=f"Download SAM checkpoints into {CHECKPOINTS_FOLDER} and verify them.",
    )
    published = [checkpoint.name for checkpoint in CHECKPOINTS.values() if checkpoint.is_published]
    parser.add_argument("names", nargs="*", choices=published, help="which (default: vit_l)")
    # Not argparse's default, which some versions check as a whole list against the choices.
    for name in parser.parse_args(sys.argv[1:] or ["vit_l"]).names:
        path = fetch(name)
        verify(name, path, sha256_of(path))
        print(f"{name}: {path}")


def _download(checkpoint: Checkpoint, path: Path) -> None:
    """Bring the checkpoint to `path` by way of a `.part` file, which an interruption leaves."""
    part = path.with_name(path.name + ".part")
    _complete(checkpoint, part)
    sha256 = sha256_of(part)
    if sha256 != checkpoint.sha256:
        part.unlink()
        raise InputError(
            f"{checkpoint.url}: what was downloaded is not the official {checkpoint.name} "
            f"checkpoint (SHA-256 {sha256}) and has been deleted: "
            f"{_remedy(checkpoint, path.parent)}"
        )
    os.replace(part, path)


def _complete(checkpoint: Checkpoint, part: Path) -> None:
    """Download what `part` lacks of the checkpoint."""
    url, size = checkpoint.url, checkpoint.size_bytes
    start = part.stat().st_size if part.exists() else 0
    if start == size:
        return
    if start > size:
        start = 0

    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})
    try:
        response = urlopen(request, timeout=TIMEOUT_SECONDS)
    except (OSError, HTTPException) as error:
        if isinstance(error, HTTPError):
            error.close()
            # Nothing follows what `part` holds. The hash will tell whether that is everything.
            if start and error.code == 416:
                return
        raise InputError(
            f"{url}: cannot be downloaded ({error}): {_remedy(checkpoint, part.parent)}"
        ) from error

    with response:
        if response.status != 206:  # the server ignores ranges, and sends the whole file
            start = 0
        # A proxy may answer with a page of its own, which must not spoil what `part` holds.
        if response.length not in (None, size - start):
            raise InputError(
                f"{url}: is answered with {response.length:,} bytes instead of {size - start:,}: "
                f"{_remedy(checkpoint, part.parent)}"
            )
        with open(part, "r+b" if start else "wb") as file:
            # Not appended, so that two processes at once write the same bytes to the same places.
            file.seek(start)
            try:
                with tqdm.wrapattr(
                    file, "write", total=size, initial=start, desc=checkpoint.file_name
                ) as counted_file:
                    shutil.copyfileobj(response, counted_file)
                if file.tell() < size:
                    raise ConnectionError("the connection was closed")
            except (OSError, HTTPException) as error:
                raise InputError(
                    f"{part}: the download stopped at {file.tell():,} of {size:,} bytes ({error}): "
                    "run the same command again to continue"
                ) from error


def _remedy(checkpoint: Checkpoint, folder: Path) -> str:
    return f"try again later, or put {checkpoint.file_name} into {folder} by hand"


def _shapes(weights: dict) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor; what is no tensor gets (), which no parameter of SAM has."""
    return {str(key): tuple(getattr(value, "shape", ())) for key, value in weights.items()}


if __name__ == "__main__":
    run_script(main)
