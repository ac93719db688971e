import hashlib

import numpy as np
import pytest
from conftest import chest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam_lungs.data.readers import read_volume
from sam_lungs.data.windowing import (
    LUNG_WINDOW,
    Window,
    choose_window,
    slice_to_rgb,
    wrong_window,
)
from sam_lungs.utils.errors import InputError


def test_the_lung_window_is_that_of_the_paper():
    assert LUNG_WINDOW.range_hu == (-1400, 100)


@pytest.mark.parametrize(
    ("name", "sha256"),
    [
        (
            "coronacases_001_slice_122",
            "5d278d7e2fa8e25a1f234634b582724dc8b81f90c04df65367955d59824bcfcf",
        ),
        (
            "radiopaedia_14_85914_0_slice_000",
            "bc8ede4ebee1d151eb1064a9c510cb79e7d2857cc7a054730edf6bd622da977e",
        ),
    ],
)
def test_real_slices_give_the_bytes_of_the_authors(real_data, name, sha256):
    image = read_volume(real_data / f"image_{name}.nii.gz")
    rgb = slice_to_rgb(image.array[:, :, 0], choose_window("auto", image.array))
    assert hashlib.sha256(rgb.tobytes()).hexdigest() == sha256


def test_values_are_clipped_then_stretched_then_truncated():
    values = np.array([[-2000, -1400, -650], [-300, 100, 900]], dtype=np.int16)
    grey = [[0, 0, 127], [187, 255, 255]]  # 750 and 1100 of 1500, times 255: 127.5 and 187
    assert slice_to_rgb(values, LUNG_WINDOW)[:, :, 0].tolist() == grey


def test_a_slice_is_stretched_from_its_own_minimum_to_its_own_maximum():
    assert slice_to_rgb(np.array([[-650, -640]]), LUNG_WINDOW)[:, :, 0].tolist() == [[0, 255]]
    assert slice_to_rgb(np.array([[10, 20, 30]]), None)[:, :, 0].tolist() == [[0, 127, 255]]


@given(
    arrays(np.int16, st.tuples(st.integers(1, 5), st.integers(1, 5))),
    st.sampled_from([LUNG_WINDOW, Window(40, 400), None]),
)
def test_every_slice_fills_0_to_255_or_is_black(values, window):
    rgb = slice_to_rgb(values, window)
    assert rgb.shape == (*values.shape, 3)
    assert rgb.dtype == np.uint8
    assert (rgb == rgb[:, :, :1]).all()
    seen = values if window is None else values.clip(*window.range_hu)
    assert (rgb.min(), rgb.max()) == ((0, 0) if np.ptp(seen) == 0 else (0, 255))
    order = np.argsort(seen, axis=None, kind="stable")
    assert (np.diff(rgb[:, :, 0].reshape(-1)[order].astype(int)) >= 0).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, ">i2"])
def test_the_dtype_of_a_volume_does_not_matter(dtype):
    values = np.array([[3, 80, 200], [1, 2, 9]])
    assert (slice_to_rgb(values.astype(dtype), None) == slice_to_rgb(values, None)).all()


def noisy_chest() -> tuple[np.ndarray, np.ndarray]:
    """Return a CT with noise, int16 in Hounsfield units, and where its lungs are."""
    image, masks = chest(slices=5)
    noise = np.random.default_rng(0).normal(0, 30, image.shape)
    return (image + noise).astype(np.int16), masks != 0


IMAGE_HU, IS_LUNG = noisy_chest()
CORNERS = np.add.outer(np.abs(np.arange(40) - 20), np.abs(np.arange(56) - 28)) > 36


def windowed(image_hu: np.ndarray) -> np.ndarray:
    """Return an 8-bit volume, as the Radiopaedia half of the dataset is."""
    return ((image_hu.clip(-1400, 100) + 1400) / 1500 * 255).astype(np.uint8)


def filled(values: np.ndarray, fill: int, dtype: type = np.int16) -> np.ndarray:
    values = values.astype(dtype)
    values[CORNERS] = fill
    return values


def test_auto_distinguishes_hounsfield_units_from_windowed_values():
    for under_masks in (None, IMAGE_HU[IS_LUNG]):
        assert choose_window("auto", IMAGE_HU, under_masks) == LUNG_WINDOW
        assert choose_window("auto", filled(IMAGE_HU, -3024), under_masks) == LUNG_WINDOW
        assert choose_window("auto", windowed(IMAGE_HU), under_masks) is None
    assert choose_window("auto", np.array([0, 255])) is None
    assert choose_window("auto", np.array([7, 7])) is None
    assert choose_window("auto", np.linspace(0, 1, 9)) is None


def test_auto_leaves_a_picture_unchanged_whatever_its_values():
    for values in (windowed(IMAGE_HU), IMAGE_HU, np.array([0, 65535])):
        assert choose_window("auto", values, is_picture=True) is None


@pytest.mark.parametrize("values", [(-500, 10), (-1, 255), (0, 256), (0, 4095), (-1024, 3000)])
def test_auto_refuses_ambiguous_values(values):
    with pytest.raises(InputError, match=r"^values from .*--window"):
        choose_window("auto", np.array(values))


# As in the file, the --window that fits, and the values that the file should hold.
MISREAD = {
    "raw": (IMAGE_HU + 1024, "374,1500", IMAGE_HU),
    "12 bits unsigned": ((IMAGE_HU + 1024).clip(0).astype("u2"), "374,1500", IMAGE_HU.clip(-1024)),
    "raw, as float": ((IMAGE_HU + 1024).astype("f4"), "374,1500", IMAGE_HU),
    "raw, filled": (filled(IMAGE_HU + 1024, -2000), "374,1500", filled(IMAGE_HU, -3024)),
    "raw, filled far": (filled(IMAGE_HU + 1024, -31000), "374,1500", filled(IMAGE_HU, -32024)),
    "intercept twice": (IMAGE_HU - 1024, "-1674,1500", IMAGE_HU),
    "twice, filled": (filled(IMAGE_HU - 1024, -3072), "-1674,1500", filled(IMAGE_HU, -2048)),
    "16 bits unsigned": ((IMAGE_HU + 32768.0).astype("u2"), "32118,1500", IMAGE_HU),
    "no air": (IMAGE_HU.clip(-499), "lung", IMAGE_HU.clip(-499)),
}
RIMMED = {fill: filled(windowed(IMAGE_HU), fill) for fill in (-1024, -1000, -3000)}


def refusal(option: str, values: np.ndarray, under_masks: np.ndarray | None) -> str | None:
    """Return the message of `choose_window`, or else of `wrong_window`."""
    try:
        return wrong_window(choose_window(option, values, under_masks), values, under_masks)
    except InputError as error:
        return str(error)


@pytest.mark.parametrize(("values", "option", "right_hu"), MISREAD.values(), ids=MISREAD)
def test_values_with_an_offset_are_refused_and_the_named_window_gives_the_right_picture(
    values, option, right_hu
):
    under_masks = values[IS_LUNG]
    assert refusal("auto", values, under_masks).endswith(f"give --window {option}")
    assert refusal(option, values, under_masks) is None
    window = choose_window(option, values)
    for index in range(values.shape[2]):
        rgb = slice_to_rgb(values[:, :, index], window)
        assert (rgb == slice_to_rgb(right_hu[:, :, index], LUNG_WINDOW)).all()


@pytest.mark.parametrize("option", ["auto", "none", "lung"])
@pytest.mark.parametrize("fill", RIMMED)
def test_an_8_bit_volume_with_a_fill_is_refused_and_the_named_window_gives_the_right_picture(
    option, fill
):
    values = RIMMED[fill]
    for under_masks in (values[IS_LUNG], None):
        if under_masks is not None or option != "lung":
            message = refusal(option, values, under_masks)
            assert message.endswith("0..255 beside a fill: give --window 127.5,255")
        assert refusal("127.5,255", values, under_masks) is None
    window = choose_window("127.5,255", values)
    right = filled(windowed(IMAGE_HU), 0)
    for index in range(values.shape[2]):
        rgb = slice_to_rgb(values[:, :, index], window)
        assert (rgb == slice_to_rgb(right[:, :, index], None)).all()


@pytest.mark.parametrize("name", [name for name in MISREAD if name != "no air"])
def test_without_masks_the_histogram_tells_the_same_window(name):
    values, option, _ = MISREAD[name]
    with pytest.raises(InputError, match=rf"give --window {option}$"):
        choose_window("auto", values)
    assert refusal(option, values, None) is None


def test_values_that_no_known_offset_explains_are_refused_without_a_suggestion():
    values = IMAGE_HU // 2 + 300
    for under_masks in (None, values[IS_LUNG]):
        with pytest.raises(InputError, match=r"choose --window LEVEL,WIDTH, or none"):
            choose_window("auto", values, under_masks)


def test_another_organ_than_a_lung_is_not_taken_for_a_lung_with_an_offset():
    under_masks = IMAGE_HU[IMAGE_HU > 0] + 70
    for window in (LUNG_WINDOW, Window(-700, 200)):
        message = wrong_window(window, IMAGE_HU, under_masks)
        assert "choose the lungs with --labels" in message
        assert message.endswith("give another --window LEVEL,WIDTH")
    assert wrong_window(Window(40, 400), IMAGE_HU, under_masks) is None


@pytest.mark.parametrize("option", ["lung", "-650,1500", "2000,100"])
def test_a_window_given_by_hand_is_checked_too(option):
    raw = IMAGE_HU + 1024
    message = wrong_window(choose_window(option, raw), raw, raw[IS_LUNG])
    assert message.endswith("the values look like HU + 1024: give --window 374,1500")
    grey = windowed(IMAGE_HU)
    assert "give --window 127.5,255" in wrong_window(
        choose_window(option, grey), grey, grey[IS_LUNG]
    )


def test_a_share_of_consolidated_or_contrasted_lung_is_accepted():
    under_masks = IMAGE_HU[IS_LUNG].copy()
    under_masks[: len(under_masks) // 2] = 50
    under_masks[: len(under_masks) // 10] = 400
    assert wrong_window(LUNG_WINDOW, IMAGE_HU, under_masks) is None


def test_without_a_window_values_that_fill_the_range_are_accepted():
    for values in (windowed(IMAGE_HU), IMAGE_HU, filled(IMAGE_HU, -3024), np.array([0, 1, 5000])):
        assert wrong_window(None, values) is None


def test_a_window_can_be_chosen_by_hand():
    either = np.array([0, 4095])
    assert choose_window("lung", either) == LUNG_WINDOW
    assert choose_window("none", either) is None
    assert choose_window("40,400", either) == Window(40, 400)
    assert choose_window("-650,1500", either) == LUNG_WINDOW


@pytest.mark.parametrize("option", ["", "Lung", "40", "40,0", "40,-5", "1,2,3", "nan,5", "0,inf"])
def test_an_unknown_window_is_refused(option):
    with pytest.raises(InputError, match="LEVEL,WIDTH"):
        choose_window(option, np.array([0, 1]))
