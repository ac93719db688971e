"""Pictures in the report: embedded in the page, so that it needs no other file."""

import base64
import os
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from matplotlib.figure import Figure

from sam_lungs.summary.figures import save_figure


class Picture(NamedTuple):
    """A picture in the report: its bytes, a caption, and the file that a click opens."""

    data_uri: str
    caption: str
    link: str


def save_picture(figure: Figure, folder: Path, name: str, caption: str) -> Picture:
    """Write a figure as `name.svg` and `name.png`, and embed it in the page beside `folder`.

    Raises `InputError` when it cannot be written.
    """
    save_figure(figure, folder, name)
    return embed_png(folder / f"{name}.png", caption, folder / f"{name}.svg", folder.parent)


def embed_png(path: Path, caption: str, opened: Path, page_folder: Path) -> Picture:
    """Embed a PNG file in a page in `page_folder`; a click on it opens another file.

    Raises `OSError` when the file cannot be read.
    """
    link = quote(Path(os.path.relpath(opened, page_folder)).as_posix())
    return Picture(data_uri("png", path.read_bytes()), caption, link)


def data_uri(kind: str, content: bytes) -> str:
    """Return an image as a data URI; kind: such as "png"."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
