import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from sam_lungs.data.readers import read_volume
from sam_lungs.data.windowing import LUNG_WINDOW, Window, choose_window, slice_to_rgb
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


def test_auto_distinguishes_hounsfield_units_from_windowed_values():
    assert choose_window("auto", np.array([-1024, 3000])) == LUNG_WINDOW
    assert choose_window("auto", np.array([-501, 0])) == LUNG_WINDOW
    assert choose_window("auto", np.array([0, 255])) is None
    assert choose_window("auto", np.array([7, 7])) is None


@pytest.mark.parametrize("values", [(-500, 10), (-1, 255), (0, 256), (0, 4095)])
def test_auto_refuses_ambiguous_values(values):
    with pytest.raises(InputError, match=r"^values from .*--window"):
        choose_window("auto", np.array(values))


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
