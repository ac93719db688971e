"""SAM's weights: where they come from, and how they get from there into a model.

Download and verify them with `python -m sam_lungs.segmenters.checkpoints vit_b vit_l vit_h`.
"""

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sam_lungs.segmenters.checkpoint_audit import check_claims
from sam_lungs.utils.download import add_mirror_option, download
from sam_lungs.utils.errors import InputError, is_out_of_memory, run_script
from sam_lungs.utils.files import check_regular, sha256_of

if TYPE_CHECKING:
    from segment_anything.modeling import Sam

CHECKPOINTS_FOLDER = Path(__file__).resolve().parents[2] / "checkpoints"


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
        # Trained on phantoms: `sam_lungs.synthetic.training`, checkpoints/sam_compact.md.
        Checkpoint(
            name="compact",
            url="sam_compact.pth",
            size_bytes=2_292_459,
            sha256="552aefb42baeacd5926f5b08e6cac52cf3c3aa72daf50d3b16711868886d9524",
            encoder_width=96,
        ),
    )
}


def fetch(name: str, folder: Path = CHECKPOINTS_FOLDER, mirror: str | None = None) -> Path:
    """Return the path of checkpoint `name` in `folder`, downloading it first if it is not there.

    See `sam_lungs.utils.download.download` for how, and for `mirror`. Of a file that is already
    there only the size is checked: hashing a gigabyte is left to the caller, see `verify`.

    Raises `InputError` when the download fails, stops or brings other bytes than the official
    ones, when the file that is there has another size, or when the folder cannot be written.
    """
    checkpoint = CHECKPOINTS[name]
    path = folder / checkpoint.file_name
    try:
        if not path.exists():
            if not checkpoint.is_published:
                raise InputError(f"{path}: no such file; {checkpoint.remedy}")
            download(checkpoint.url, path, checkpoint.sha256, checkpoint.size_bytes, mirror)
        check_regular(path)
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


def load_sam(name: str, path: Path, is_verified: bool = False) -> "Sam":
    """Return SAM of the architecture `name` with the weights of the file at `path`.

    The model is in float32 on the CPU, in evaluation mode, and without gradients. No code that
    the file may hold is run, and no more memory taken than the file's size and the model's.
    Bytes that have changed on the way are noticed in PyTorch's archives, but not in the parameters
    of a file in its format of before version 1.6, which has no checksums.

    is_verified: `verify` has found it to be an official file, and so there is nothing to suspect.

    Raises `InputError` when the file cannot be read, is no PyTorch file of plain tensors, or
    holds anything but exactly this architecture's parameters, and when memory is short.
    """
    # Imported here because torch takes seconds, which fetching need not wait for.
    import torch
    from segment_anything import sam_model_registry

    from sam_lungs.segmenters.sam_compact import build_compact

    try:
        check_regular(path)
        if not is_verified:
            check_claims(path)
        weights = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # a broken file raises almost any type
        if is_out_of_memory(error):
            raise InputError(
                f"{path}: too little memory for the weights: close other programs, or use a "
                "smaller model or a larger machine"
            ) from error
        if isinstance(error, OSError) and error.filename:
            raise InputError(f"{path}: cannot be read ({error.strerror})") from error
        raise InputError(
            f"{path}: is not a PyTorch file of plain tensors, or not all of one: download it again"
        ) from error

    # Only its items, because an OrderedDict may carry attributes that stand in for its methods.
    weights = dict(dict.items(weights)) if isinstance(weights, dict) else {}
    held_shapes = _shapes(weights) if all(isinstance(key, str) for key in weights) else {}
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
            f"parameters, the first {misfits[0]!r:.80}): name a checkpoint of the original SAM"
        )
    sam.load_state_dict(weights, assign=True)
    return sam.float().eval().requires_grad_(False)


def main() -> None:
    """Fetch and verify the checkpoints named on the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m sam_lungs.segmenters.checkpoints",
        description=f"Download SAM checkpoints into {CHECKPOINTS_FOLDER} and verify them.",
    )
    add_mirror_option(parser)
    published = [checkpoint.name for checkpoint in CHECKPOINTS.values() if checkpoint.is_published]
    # The default is no list, because some versions check it as a whole against the choices.
    parser.add_argument(
        "names", nargs="*", choices=published, default="vit_l", help="which (default: %(default)s)"
    )
    args = parser.parse_args()
    for name in args.names if isinstance(args.names, list) else [args.names]:
        path = fetch(name, mirror=args.mirror)
        verify(name, path, sha256_of(path))
        print(f"{name}: {path}")


def _shapes(weights: dict) -> dict[str, tuple[int, ...]]:
    """Return the shape of each tensor; what is no tensor gets (), which no parameter of SAM has."""
    return {key: tuple(getattr(value, "shape", ())) for key, value in weights.items()}


if __name__ == "__main__":
    run_script(main)
