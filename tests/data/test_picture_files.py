import zlib

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image

from sam_lungs.data.arrays import write_numpy
from sam_lungs.data.readers import identify, read_volume
from sam_lungs.utils.errors import InputError

GREY = np.array([[0, 1, 254], [255, 7, 8]], np.uint8)
DEEP = np.array([[0, 1, 65535], [256, 257, 40000]], np.uint16)


def refused(path, *words, **options):
    with pytest.raises(InputError) as error:
        read_volume(path, **options)
    assert "\n" not in str(error.value)
    for word in (path.name, *words):
        assert word in str(error.value)


def saved(path, pixels):
    """Write pixels (rows, columns[, channels in the order BGRA])."""
    assert cv2.imwrite(str(path), pixels)
    return path


def assert_picture(path, pixels):
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.array, pixels[:, :, None])
    assert volume.array.dtype == pixels.dtype
    assert volume.is_picture
    assert volume.geometry is None
    assert volume.source_name == path.name
    assert volume.identity == identify(path)


@settings(max_examples=50)
@given(
    st.sampled_from([np.uint8, np.uint16]).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=2, max_dims=2))
    ),
    st.sampled_from([1, 3, 4]),
)
def test_grey_is_read_exactly_with_8_and_16_bits(tmp_path_factory, pixels, channels):
    stored = [pixels] * min(channels, 3) + [np.full_like(pixels, np.iinfo(pixels.dtype).max)] * (
        channels == 4
    )
    path = tmp_path_factory.mktemp("any") / "image.png"
    assert_picture(saved(path, np.dstack(stored)), pixels)


@pytest.mark.parametrize("suffix", [".jpg", ".jpeg", ".JPG", ".PNG"])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_suffix_is_read_in_any_case(tmp_path, suffix, channels):
    path = saved(
        tmp_path / f"image{suffix}", np.dstack([np.full((16, 24), 77, np.uint8)] * channels)
    )
    assert_picture(path, np.full((16, 24), 77, np.uint8))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "I;16"])
def test_every_mode_of_a_grey_picture_gives_the_same_pixels(tmp_path, mode):
    black_and_white = np.array([[0, 255, 0], [255, 255, 0]], np.uint8)
    Image.fromarray(black_and_white).convert(mode).save(tmp_path / "masks.png")
    assert_picture(
        tmp_path / "masks.png", black_and_white.astype(np.uint16 if mode == "I;16" else np.uint8)
    )


def test_colours_are_refused(tmp_path):
    for dtype in (np.uint8, np.uint16):
        pixels = np.zeros((2, 3, 3), dtype)
        pixels[1, 2, 1] = 1
        refused(saved(tmp_path / "image.png", pixels), "colours")
    palette = Image.fromarray(np.uint8([[0, 1]]), "P")
    palette.putpalette([0, 0, 0, 128, 0, 0])
    palette.save(tmp_path / "masks.png")
    refused(tmp_path / "masks.png", "colours")


def test_transparent_pixels_are_refused(tmp_path):
    pixels = np.full((2, 3, 4), 255, np.uint8)
    pixels[0, 0, 3] = 254
    refused(saved(tmp_path / "image.png", pixels), "transparent")


def test_a_picture_that_a_viewer_would_turn_is_refused(tmp_path):
    exif = Image.Exif()
    for value in (1, 6):
        exif[0x0112] = value
        Image.fromarray(GREY).save(tmp_path / "image.jpg", exif=exif)
        if value == 1:
            assert read_volume(tmp_path / "image.jpg").array.shape == (2, 3, 1)
        else:
            refused(tmp_path / "image.jpg", "EXIF")


def test_several_pictures_in_a_file_are_refused(tmp_path):
    frames = [Image.fromarray(GREY), Image.fromarray(GREY + 1)]
    frames[0].save(tmp_path / "image.png", save_all=True, append_images=frames[1:])
    refused(tmp_path / "image.png", "2 pictures")


@pytest.mark.parametrize(
    ("suffix", "depth"), [(".png", np.uint8), (".png", np.uint16), (".jpg", np.uint8)]
)
def test_a_truncated_picture_is_refused(tmp_path, suffix, depth):
    noise = np.random.default_rng(0).integers(0, 255, (30, 40)).astype(depth)
    path = saved(tmp_path / f"image{suffix}", noise)
    content = path.read_bytes()
    for end in range(0, len(content) - 16, len(content) // 40):
        path.write_bytes(content[:end])
        refused(path)


def test_a_damaged_png_is_refused(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (30, 40)).astype(np.uint8)
    path = saved(tmp_path / "image.png", noise)
    content = path.read_bytes()
    for at in range(60, len(content) - 16, 97):
        path.write_bytes(content[:at] + bytes([content[at] ^ 4]) + content[at + 1 :])
        refused(path)


def test_a_decompression_bomb_is_refused(tmp_path):
    path = saved(tmp_path / "image.png", GREY)
    content = bytearray(path.read_bytes())
    for side in (9500, 2**31 - 1):
        content[16:24] = side.to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
        path.write_bytes(content)
        refused(path, "more than 89478485 pixels")


def test_another_format_is_refused(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "image.png", format="GIF")
    refused(tmp_path / "image.png", "not a PNG or JPEG")
    (tmp_path / "image.png").write_text("text")
    refused(tmp_path / "image.png", "not a PNG or JPEG")
    refused(tmp_path / "missing.png", "no such file")


def test_a_spacing_can_be_given_and_stays_in_the_array(tmp_path):
    path = saved(tmp_path / "image.png", GREY)
    for spacing_mm, expected in (((0.2, 0.1), (0.2, 0.1, 1)), ((0.2, 0.1, 3), (0.2, 0.1, 3))):
        volume = read_volume(path, spacing_mm=spacing_mm)
        assert volume.geometry.spacing_mm == expected
        assert not volume.geometry.is_oriented
        write_numpy(volume, tmp_path / "image.npy")
        again = read_volume(tmp_path / "image.npy")
        assert again.geometry.spacing_mm == expected
        assert (again.is_picture, again.geometry.is_oriented) == (True, False)
        assert again.source_name == "image.png"
    refused(path, "--orientation paper", orientation="radiological")


def test_the_real_x_rays_and_their_masks_are_read(real_data):
    for number in range(1, 5):
        picture = read_volume(real_data / "xrays" / f"{number}.jpg")
        masks = read_volume(real_data / "xrays" / f"{number}-mask.png")
        for volume in (picture, masks):
            assert volume.array.shape == (512, 512, 1)
            assert (volume.array.dtype, volume.is_picture) == (np.uint8, True)
        assert np.unique(masks.array).tolist() == [0, 255]
        assert len(np.unique(picture.array)) > 200
