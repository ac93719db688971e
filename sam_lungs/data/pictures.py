"""Pictures (PNG, JPEG) as a volume of one slice: X-rays and their masks."""

import warnings
from io import BytesIO
from pathlib import Path

import cv2
import numpy as np
from PIL import Image, UnidentifiedImageError

from sam_lungs.data import guard
from sam_lungs.data.volume import Volume
from sam_lungs.utils.errors import InputError

EXIF_ORIENTATION = 0x0112


def read_picture(path: Path) -> Volume:
    """Read a grey PNG or JPEG into an array (rows, columns, 1), uint8 or uint16.

    Colours are accepted where all three channels are equal, transparency where all is opaque. A
    palette is applied; black and white is 0 and 255. The geometry is `None`: the resolution in such
    a file is for printing.

    Raises `InputError` for a file that is not a valid picture, has colours, is transparent, is
    turned by its EXIF tag, or has more pixels than Pillow accepts (89 million).
    """
    with guard.reading(path), warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        content, sha256 = guard.read_bytes(path)
        try:
            with Image.open(BytesIO(content), formats=("PNG", "JPEG")) as picture:
                turned = picture.getexif().get(EXIF_ORIENTATION, 1) != 1
                frames = getattr(picture, "n_frames", 1)
                picture.load()
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise InputError(
                f"{path}: has more than {Image.MAX_IMAGE_PIXELS} pixels; make it smaller"
            ) from None
        except UnidentifiedImageError:
            raise InputError(f"{path}: not a PNG or JPEG picture; save it as PNG") from None
        except Exception as error:  # a damaged file raises almost any type
            raise InputError(f"{path}: a damaged picture ({error}); save it again") from error
        if turned or frames > 1:
            what = f"holds {frames} pictures" if frames > 1 else "is turned by its EXIF tag"
            raise InputError(f"{path}: {what}; save it as a PNG of one upright picture")
        # Pillow has refused damaged files; OpenCV keeps all 16 bits, also with three channels.
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        return Volume(
            _grey(path, pixels)[:, :, None],
            None,
            path,
            sha256,
            "paper",
            is_picture=True,
            source_name=path.name,
        )


def _grey(path: Path, pixels: np.ndarray) -> np.ndarray:
    if pixels.ndim == 2:
        return pixels
    colours = list(np.moveaxis(pixels, 2, 0))
    if len(colours) == 4 and (colours.pop() != np.iinfo(pixels.dtype).max).any():
        raise InputError(f"{path}: has transparent pixels; save it without transparency")
    if any((colour != colours[0]).any() for colour in colours):
        raise InputError(f"{path}: has colours; save it as a grey picture (masks: value = label)")
    return colours[0]
