"""The baselines on slices of a few pixels, with masks that were worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from server import error_of

from sam_lungs.data.windowing import LUNG_WINDOW, Window, slice_to_rgb
from sam_lungs.prompts.protocols import Prompts
from sam_lungs.segmenters import base
from sam_lungs.segmenters.base import segment
from sam_lungs.segmenters.baselines import BASELINES, NEEDS_BOX, THRESHOLD
from sam_lungs.segmenters.checkpoints import fetch
from sam_lungs.segmenters.registry import (
    check_model,
    identify,
    load_segmenters,
    native_window,
    weights_path,
)
from sam_lungs.study.pipeline import PromptedSlice

BOX, THRESHOLDING = (load_segmenters(name)[0] for name in ("box", "threshold"))
HU = np.array(
    [
        [-800, -800, 0, -900, -900, -900],
        [-800, 0, -800, 0, -900, 0],
        [0, 0, -800, 0, 0, 0],
        [-400, -401, 0, -700, -700, 0],
        [-800, 0, 0, -700, -700, -700],
    ],
    dtype=np.int16,
)


def prompt(positive=(), negative=(), box=None) -> Prompts:
    """Prompts of points, (row, column), and a box (top, left, bottom, right)."""
    points_rc = np.array([*positive, *negative], dtype=int).reshape(-1, 2)
    labels = np.repeat([1, 0], [len(positive), len(negative)])
    return Prompts(points_rc, labels, None if box is None else np.array(box))


def in_window(values: np.ndarray, window: Window = LUNG_WINDOW) -> np.ndarray:
    return PromptedSlice(0, values, None, None, [], [], window.range_hu).in_window


def drawn(mask: np.ndarray) -> list[str]:
    return ["".join(".#"[pixel] for pixel in row) for row in mask.astype(int)]


def thresholded(values: np.ndarray, prompts: Prompts, window: Window | None = LUNG_WINDOW):
    """The mask of `threshold`, drawn with # and dots."""
    places = None if window is None else in_window(values, window)
    return drawn(segment(THRESHOLDING, slice_to_rgb(values, window), prompts, places).mask)


def test_the_box_is_filled_up_to_its_excluded_last_row_and_column():
    image_rgb = slice_to_rgb(HU, LUNG_WINDOW)
    point_outside = prompt([(0, 0)], [(4, 4)], box=(1, 2, 4, 5))
    for prompts in (point_outside, prompt(box=(1, 2, 4, 5))):
        mask = segment(BOX, image_rgb, prompts, in_window(HU)).mask
        assert drawn(mask) == ["......", "..###.", "..###.", "..###.", "......"]
    assert segment(BOX, image_rgb, prompt(box=(0, 0, 5, 6))).mask.all()


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        # Without positive points all voxels below -400 HU in the box; -400 itself is not below.
        (prompt(), ["##.###", "#.#.#.", "..#...", ".#.##.", "#..###"]),
        (prompt(negative=[(0, 0)]), ["##.###", "#.#.#.", "..#...", ".#.##.", "#..###"]),
        (prompt(box=(0, 0, 4, 5)), ["##.##.", "#.#.#.", "..#...", ".#.##.", "......"]),
        # (0, 1) and (1, 2) touch at a corner only.
        (prompt([(0, 0)]), ["##....", "#.....", "......", "......", "......"]),
        (prompt([(2, 2)]), ["......", "..#...", "..#...", "......", "......"]),
        # A negative point has no effect, also in the same region.
        (prompt([(0, 0)], [(1, 0)]), ["##....", "#.....", "......", "......", "......"]),
        # Two points, two regions; two points in one region.
        (prompt([(0, 5), (4, 5)]), ["...###", "....#.", "......", "...##.", "...###"]),
        (prompt([(0, 5), (0, 3)]), ["...###", "....#.", "......", "......", "......"]),
        # The box cuts a region: (4, 5) is connected inside of it, (0, 5) is outside.
        (prompt([(4, 5)], box=(2, 3, 5, 6)), ["......", "......", "......", "...##.", "...###"]),
        (prompt([(0, 3)], box=(0, 2, 2, 5)), ["...##.", "....#.", "......", "......", "......"]),
        (prompt([(0, 1)], box=(0, 1, 2, 3)), [".#....", "......", "......", "......", "......"]),
        # No region at the positive point: not below -400 HU, or outside of the box.
        (prompt([(2, 0)]), ["......"] * 5),
        (prompt([(3, 0)]), ["......"] * 5),
        (prompt([(0, 0)], box=(2, 0, 5, 6)), ["......"] * 5),
        (prompt([(0, 0), (4, 4)], box=(3, 4, 5, 5)), [*["......"] * 3, "....#.", "....#."]),
    ],
)
def test_the_regions_of_the_threshold(prompts, expected):
    assert thresholded(HU, prompts) == expected


def test_the_threshold_is_the_place_of_400_hu_in_the_lung_window():
    low, high = LUNG_WINDOW.range_hu
    assert (-400.0 - low) / (high - low) == THRESHOLD


@pytest.mark.parametrize(
    ("values", "window"),
    [
        (np.array([[-401, -400, -399]], np.int16), LUNG_WINDOW),
        (np.array([[-400.001, -400, -399]], np.float32), LUNG_WINDOW),
        (np.array([[623, 624, 625]], np.uint16), Window(374, 1500)),
        (np.array([[169, 170, 171]], np.uint8), Window(127.5, 255)),
        (np.array([[-3000, 3000, 200]], np.int16), LUNG_WINDOW),
    ],
)
def test_only_what_is_below_is_dark(values, window):
    assert thresholded(values, prompt(), window) == ["#.."]


def test_the_range_of_the_slice_does_not_move_the_threshold():
    values = np.array([[-500, -450, -401, -400]], np.int16)
    assert thresholded(values, prompt()) == ["###."]
    assert thresholded(values - 600, prompt()) == ["####"]


def test_otsu_separates_the_grey_values_in_the_box():
    picture = np.array(
        [[0, 255, 255, 255, 255], [0, 90, 90, 100, 255], [0, 200, 210, 100, 255]], np.uint8
    )
    # In the box: 90, 90, 100 | 200, 210, 100. The greatest variance between is at 100.
    assert thresholded(picture, prompt(box=(1, 1, 3, 4)), None) == [".....", ".###.", "...#."]
    # In the whole slice: three 0, two 90 and two 100 lie below the six 255, 200 and 210.
    assert thresholded(picture, prompt([(1, 2)]), None) == ["#....", "####.", "#..#."]


@pytest.mark.parametrize("value", [0, 7, 255])
def test_equal_grey_values_have_no_dark_part(value):
    picture = np.array([[value] * 3, [1, 2, 3]], np.uint8)
    image_rgb = np.repeat(picture[:, :, None], 3, axis=2)
    assert not segment(THRESHOLDING, image_rgb, prompt(box=(0, 0, 1, 3))).mask.any()


def flooded(dark: np.ndarray, starts: list[tuple[int, int]]) -> np.ndarray:
    """Fill from the starts through neighbouring dark pixels, one pixel at a time."""
    mask, left = np.zeros_like(dark), list(starts)
    while left:
        row, column = left.pop()
        inside = 0 <= row < dark.shape[0] and 0 <= column < dark.shape[1]
        if inside and dark[row, column] and not mask[row, column]:
            mask[row, column] = True
            left += [(row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)]
    return mask


PIXELS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 6)), min_size=1, max_size=3)


@given(arrays(np.int16, (6, 7), elements=st.sampled_from([-900, -401, -400, 50])), PIXELS, PIXELS)
def test_the_regions_are_those_of_a_flood_fill(values, positive, negative):
    (top, left), (bottom, right) = np.array(positive).min(0), np.array(positive).max(0) + 1
    box = np.zeros(values.shape, bool)
    box[top:bottom, left:right] = True
    dark = values < -400
    for corners, inside in ((None, dark), ((top, left, bottom, right), box & dark)):
        prompts = prompt(positive, negative, corners)
        mask = segment(THRESHOLDING, slice_to_rgb(values, None), prompts, in_window(values)).mask
        np.testing.assert_array_equal(mask, flooded(inside, positive))


def test_several_slices_and_prompts():
    pictures = [
        THRESHOLDING.prepare(slice_to_rgb(values, None), in_window(values)) for values in (HU, -HU)
    ]
    prompts = [[prompt([(0, 0)]), prompt([(2, 2)], box=(0, 0, 5, 3))], [prompt(), prompt()]]
    decoded = THRESHOLDING.decode(THRESHOLDING.encode(pictures), HU.shape, prompts)
    assert decoded.masks.shape == decoded.mask_logits.shape == (2, 2, 5, 6)
    assert [int(mask.sum()) for mask in decoded.masks.flatten(0, 1)] == [3, 2, 0, 0]
    assert (decoded.predicted_ious.shape, decoded.predicted_ious.dtype) == ((2, 2), torch.float32)
    assert decoded.predicted_ious.isnan().all()
    assert decoded.mask_logits.dtype == torch.float32
    assert torch.equal(decoded.mask_logits, torch.where(decoded.masks, 1.0, -1.0))
    boxes = [[prompt(box=(0, 0, 1, 1))], [prompt(box=(0, 0, 2, 2))]]
    encoded = BOX.encode([BOX.prepare(slice_to_rgb(HU, None)) for _ in boxes])
    assert BOX.decode(encoded, (5, 6), boxes).masks.sum((1, 2, 3)).tolist() == [1, 4]


def test_what_a_baseline_cannot_do_is_refused(tmp_path):
    image_rgb = slice_to_rgb(HU, LUNG_WINDOW)
    assert error_of(segment, BOX, image_rgb, prompt([(0, 0)])) == NEEDS_BOX
    for baseline in (BOX, THRESHOLDING):
        embeddings = baseline.encode([baseline.prepare(image_rgb)])
        prompts = [[prompt(box=(0, 0, 1, 1))]]
        message = error_of(baseline.decode, embeddings, (5, 6), prompts, multimask=True)
        assert "predicts one mask per prompt, not three" in message
    path = tmp_path / "sam.pth"
    assert error_of(load_segmenters, "box", path) == (
        f"{path}: --model box has no weights; leave out --checkpoint"
    )
    assert error_of(check_model, "threshold", None, tmp_path) == (
        f"{tmp_path}: --model threshold has no weights; leave out --model_folder"
    )
    assert error_of(fetch, "box") == "box: has no weights to download; leave it out"
    assert error_of(native_window, "threshold").endswith("leave out --preprocessing native")


@pytest.mark.parametrize("name", BASELINES)
def test_the_identity(name):
    identity = identify(name)
    assert identity == {
        **identify(name, mask_choice="best_score"),
        "model": name,
        "family": "baseline",
        "weights": {},
        "provenance": "none",
        "licence": "Apache-2.0",
        "size_bytes": 0,
        "prompt_kinds": ["points", "negative", "box"],
    }
    assert identity["packages"].keys() >= {"numpy", "scipy"}
    (segmenter,) = load_segmenters(name, device="cuda", precision="bfloat16")
    assert (segmenter.device.type, segmenter.identity) == ("cpu", identity)
    assert weights_path(name) is None
    assert check_model(name) == segmenter.prompt_kinds


def test_baselines_are_told_apart():
    assert tuple(BASELINES) == base.BASELINES
    # The weights and the preprocessing are what tells two models apart in a results folder.
    assert len({identify(name)["preprocessing"] for name in BASELINES}) == len(BASELINES)
