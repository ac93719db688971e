"""Pictures in the report: embedded in the page, so that it needs no other file."""

import base64
import io
import os
from pathlib import Path
from typing import NamedTuple

from matplotlib.figure import Figure
from PIL import Image

from sam_lungs.summary.figures import save_figure

FIGURE_SUFFIXES = ("svg", "pdf", "png")


class Picture(NamedTuple):
    """A picture in the report: its bytes, a caption, and the files that have it, as text.

    animation_uri: shown only while a reader wants it, because a GIF cannot be stopped.
    """

    data_uri: str
    caption: str
    files: str
    animation_uri: str | None = None


def save_picture(figure: Figure, folder: Path, name: str, caption: str) -> Picture:
    """Write a figure, see `figures.save_figure`, and embed it in the page beside `folder`.

    Raises `InputError` when it cannot be written.
    """
    save_figure(figure, folder, name)
    return embed_png(folder / f"{name}.png", caption, folder.parent)


def figure_files(folder: Path, name: str) -> list[Path]:
    """Return the files of a figure, as far as they exist."""
    paths = [folder / f"{name}.{suffix}" for suffix in FIGURE_SUFFIXES]
    return [path for path in paths if path.exists()]


def embed_png(path: Path, caption: str, page_folder: Path) -> Picture:
    """Embed a PNG file in a page in `page_folder`; all files of the figure are named.

    Raises `OSError` when the file cannot be read.
    """
    first, *others = figure_files(path.parent, path.stem)
    names = [_relative(first, page_folder), *(each.suffix for each in others)]
    return Picture(data_uri("png", path.read_bytes()), caption, ", ".join(names))


def embed_animation(path: Path, caption: str, page_folder: Path) -> Picture:
    """Embed a GIF file, and its middle frame as the picture that stands still.

    Raises `OSError` when the file cannot be read.
    """
    with Image.open(path) as animation:
        animation.seek(animation.n_frames // 2)
        still = encode(animation, "PNG")
    uri = data_uri("gif", path.read_bytes())
    return Picture(still, caption, _relative(path, page_folder), uri)


def embed_thumbnail(path: Path, caption: str, page_folder: Path, pixels: int) -> Picture:
    """Embed a picture file in at most this many rows and columns.

    Raises `OSError` when the file cannot be read.
    """
    with Image.open(path) as picture:
        thumbnail = picture.convert("RGB")
    thumbnail.thumbnail((pixels, pixels))
    return Picture(encode(thumbnail, "JPEG", quality=85), caption, _relative(path, page_folder))


def encode(picture: Image.Image, kind: str, **options: object) -> str:
    """Return a picture as a data URI; kind: of Pillow, such as "PNG"."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return data_uri(kind.lower(), buffer.getvalue())


def data_uri(kind: str, content: bytes) -> str:
    """Return an image as a data URI; kind: such as "png"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def _relative(path: Path, page_folder: Path) -> str:
    return Path(os.path.relpath(path, page_folder)).as_posix()
