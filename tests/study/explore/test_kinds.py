"""The kinds of explorations, on slices with a tiny SAM and with segmenters that are known."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import chest, tiny_sam

from sam_lungs.data.windowing import LUNG_WINDOW, slice_to_rgb
from sam_lungs.prompts.clicks import first_prompt
from sam_lungs.prompts.grid import click_alone, with_click
from sam_lungs.prompts.protocols import PROTOCOLS, Prompts
from sam_lungs.prompts.rules import make_prompts
from sam_lungs.segmenters.base import Decoded, segment
from sam_lungs.segmenters.sam import SamSegmenter
from sam_lungs.study.explore import best, click_map, clicks, jitter, points
from sam_lungs.study.explore.engine import CHUNK, ExploredSlice
from sam_lungs.study.explore.options import ExploreOptions
from sam_lungs.study.explore.results import maps_of, values_table
from sam_lungs.study.metrics import dice, overlap
from sam_lungs.utils.errors import InputError

CPU = torch.device("cpu")
NAMES = {1: "1", 2: "2"}


def options_of(kind: str, **others: object) -> ExploreOptions:
    return ExploreOptions(("image.npy",), ("masks.npy",), kind=(kind,), **others)


class Disc:
    """Segments the voxels within a radius of any positive point that are dark, as it is itself.

    It is equivariant under rotations and reflections. A negative point clears its own disc.
    """

    device = CPU

    def __init__(self, radius: float = 9.0) -> None:
        self._radius = radius

    def decode_slice(self, embeddings, size_rc, prompts, mask_logits=None, multimask=False):
        grid = np.stack(np.mgrid[: size_rc[0], : size_rc[1]], axis=-1)
        masks = []
        for each in prompts:
            mask = np.zeros(size_rc, bool)
            for point_rc, label in zip(each.points_rc, each.labels, strict=True):
                mask[((grid - point_rc) ** 2).sum(-1) < self._radius**2] = label
            masks.append(mask & embeddings[0][0].numpy())
        masks = torch.from_numpy(np.array(masks))
        return Decoded(masks, torch.full((len(masks),), torch.nan), masks * 2.0 - 1)


def slice_of(segmenter, embeddings, masks, protocol="paper", objects="together", **others):
    return ExploredSlice(
        "case", 3, masks, NAMES, PROTOCOLS[protocol], objects, (0.7, 0.8), segmenter, embeddings
    )


@pytest.fixture(scope="module")
def sam_slice() -> ExploredSlice:
    image, masks = (array[:, :, 2] for array in chest())
    segmenter = SamSegmenter(tiny_sam(), CPU)
    rgb = slice_to_rgb(image, LUNG_WINDOW)
    return slice_of(segmenter, segmenter.encode([segmenter.prepare(rgb)]), masks)


def disc_slice(masks: np.ndarray, dark: np.ndarray, **others) -> ExploredSlice:
    return slice_of(Disc(), (torch.from_numpy(dark.copy())[None],), masks, **others)


def dice_of(of_slice: ExploredSlice, prompts: Prompts, reference: np.ndarray) -> float:
    """The Dice score of one prompt, decoded alone."""
    return dice(of_slice.decode([prompts]).masks[0].numpy(), reference)


def dice_by_process(of_slice: ExploredSlice, prompts: Prompts, reference: np.ndarray) -> object:
    """The Dice score of one prompt as `process_image.py` computes it.

    The weights are random, so the logits of a few pixels are within rounding of the threshold.
    """
    image = slice_to_rgb(chest()[0][:, :, 2], LUNG_WINDOW)
    value = dice(segment(of_slice.segmenter, image, prompts).mask, reference)
    return pytest.approx(value, abs=4 / np.count_nonzero(reference))


@pytest.mark.parametrize("kind", ["map", "negative_map"])
def test_a_map_has_the_dice_of_each_click(sam_slice, kind):
    tables = click_map.explore(sam_slice, options_of(kind, step_pixels=13))
    assert [each["object"] for each in tables] == ["all", "1", "2"]
    different = 0
    for table, target in zip(tables, [sam_slice.together, *sam_slice.apart], strict=True):
        for row, column, value in zip(
            *(table[name] for name in ("row", "column", "dice")), strict=True
        ):
            prompts = with_click(target.prompts, (row, column), int(kind == "map"))
            assert value == dice_of(sam_slice, prompts, target.reference)
            if row == 6:
                assert value == dice_by_process(sam_slice, prompts, target.reference)
        different += len(set(table["dice"]))
    assert different > 3


def test_a_click_alone_is_measured_for_each_object(sam_slice):
    tables = click_map.explore(sam_slice, options_of("map", step_pixels=13, alone=True))
    for table, target in zip(tables, [sam_slice.together, *sam_slice.apart], strict=True):
        for row, column, value in zip(
            *(table[name] for name in ("row", "column", "dice")), strict=True
        ):
            alone = click_alone((row, column))
            assert value == dice_of(sam_slice, alone, target.reference)


def test_objects_apart_are_maps_of_each_object(sam_slice):
    apart = replace(sam_slice, objects="apart")
    together = click_map.explore(sam_slice, options_of("map", step_pixels=13))
    assert click_map.explore(apart, options_of("map", step_pixels=13)) == together[1:]


def turned(array: np.ndarray, turn: int) -> np.ndarray:
    """Rotate by `turn` % 4 quarters; reflect first if `turn` is at least 4."""
    return np.rot90(array[:, ::-1] if turn >= 4 else array, turn % 4).copy()


@pytest.mark.parametrize("turn", range(1, 8))
@pytest.mark.parametrize("alone", [False, True])
def test_turning_a_slice_turns_its_map(turn, alone):
    rng = np.random.default_rng(turn)
    # Blocks of 5 pixels fit, so that their middles stay middles.
    masks = np.kron(rng.random((7, 10)) < 0.4, np.ones((5, 5))).astype(np.uint8)
    dark = (masks > 0) ^ (rng.random(masks.shape) < 0.1)
    # Centres of boxes are rounded, which is not symmetric; so there is no negative point.
    options = options_of("map", step_pixels=5, margin_pixels=5, alone=alone)
    maps = [
        maps_of(click_map.explore(disc_slice(*arrays, protocol="points"), options))["all"]
        for arrays in ((masks, dark), (turned(masks, turn), turned(dark, turn)))
    ]
    assert maps[0].dice.std() > 0
    np.testing.assert_array_equal(turned(maps[0].dice, turn), maps[1].dice)


def test_the_summary_weights_positions_by_their_block():
    # One object of 10 x 5 pixels: two whole blocks, of which one is segmented perfectly.
    masks = np.zeros((20, 20), np.uint8)
    masks[5:15, 5:10] = 1
    values = values_table(
        [
            {
                "index": 7,
                "tables": [
                    {
                        "object": "all",
                        "row": [2, 7, 12, 17],
                        "column": [7, 7, 7, 7],
                        "jaccard": [0.0] * 4,
                        "dice": [0.1, 0.85, 0.95, 0.2],
                        "weight": click_map._weights(
                            masks > 0, np.array([[2, 7], [7, 7], [12, 7], [17, 7]]), 5
                        ),
                    }
                ],
            }
        ]
    )
    assert values["weight"].tolist() == [0, 25, 25, 0]
    summary = {name: value for name, _, value in click_map.summarize(values, options_of("map"))}
    assert summary == pytest.approx(
        {
            "missed_slices": 0,
            "share_dice_0.8": 1,
            "share_dice_0.9": 0.5,
            "random_click_mean": 0.9,
            "random_click_q05": 0.85,
            **{"worst_dice": 0.85, "worst_row": 7, "worst_column": 7, "worst_slice": 7},
            **{"best_dice": 0.95, "best_row": 12, "best_column": 7, "best_slice": 7},
        }
    )


def test_slices_that_the_grid_misses_are_counted():
    values = pd.DataFrame(
        {"slice": [1, 1, 2], "object": "all", "row": 0, "column": 0, "dice": 0.5, "weight": 0}
    )
    assert click_map.summarize(values, options_of("map")) == [("missed_slices", "all", 2)]


def test_a_position_stands_for_the_pixels_of_its_cut_block():
    inside = np.ones((7, 8), bool)
    inside[0, 0] = False
    # Middles of blocks of 5; the last ones are cut to 2 rows and 3 columns.
    grid = np.array([[2, 2], [2, 7], [6, 2], [6, 7]])
    assert click_map._weights(inside, grid, 5) == [24, 15, 10, 6]


@pytest.mark.parametrize("objects", ["together", "apart"])
def test_jitter_without_sigma_is_the_protocol(sam_slice, objects):
    of_slice = replace(sam_slice, objects=objects)
    tables = jitter.explore(of_slice, options_of("jitter", sigma_mm=(0.0, 5.0), repeats=3))
    masks = of_slice.decode([target.prompts for target in of_slice.targets]).masks
    expected = dice(masks.any(0).numpy(), of_slice.masks != 0)
    assert tables[0]["dice"] == [expected] * 3
    assert len({expected, *tables[1]["dice"]}) > 1


def test_numbers_of_jitter_do_not_depend_on_what_else_is_asked(sam_slice):
    many = jitter.explore(sam_slice, options_of("jitter", sigma_mm=(1.0, 5.0), repeats=CHUNK + 3))
    few = jitter.explore(sam_slice, options_of("jitter", sigma_mm=(5.0,), repeats=4))
    assert many[1]["dice"][:4] == few[0]["dice"]


def test_the_summary_of_jitter_is_mean_and_spread():
    tables = [
        {
            "index": index,
            "tables": [{"object": "all", "sigma_mm": 2.0, "repeat": [0, 1], "dice": dice}],
        }
        for index, dice in ((0, [0.5, 0.7]), (1, [0.9, 0.9]))
    ]
    rows = jitter.summarize(values_table(tables), options_of("jitter"))
    assert rows == [
        ("mean_dice_sigma_2mm", "all", pytest.approx(0.75)),
        ("spread_sigma_2mm", "all", pytest.approx(0.2 / 2**0.5 / 2)),
    ]


def test_points_with_and_without_the_box(sam_slice):
    options = options_of("points", points_per_object=(1, 4), repeats=3)
    values = values_table([{"index": 3, "tables": points.explore(sam_slice, options)}])
    counts = values.groupby(["rule", "points", "box"]).size()
    assert counts["random"].tolist() == [3] * 4
    assert counts["spread"].tolist() == [1] * 4
    names = {name for name, _, _ in points.summarize(values, options)}
    expected = {f"mean_dice_{n}_points{box}" for n in (1, 4) for box in ("", "_box")}
    assert names == expected | {f"{name}_spread" for name in expected}


def test_more_points_segment_more_of_an_object():
    masks = np.zeros((60, 60), np.uint8)
    masks[10:50, 10:50] = 1
    of_slice = disc_slice(masks, masks > 0)
    options = options_of("points", points_per_object=(1, 5, 40), repeats=4)
    values = values_table([{"index": 3, "tables": points.explore(of_slice, options)}])
    means = {name: value for name, _, value in points.summarize(values, options)}
    assert means["mean_dice_1_points"] < means["mean_dice_5_points"] < means["mean_dice_40_points"]
    assert means["mean_dice_5_points_spread"] > means["mean_dice_5_points"]


@pytest.mark.parametrize("protocol", ["paper", "box_only"])
def test_the_first_click_is_the_first_prompt(sam_slice, protocol):
    of_slice = replace(sam_slice, protocol=PROTOCOLS[protocol], objects="apart")
    tables = clicks.explore(of_slice, options_of("clicks", clicks=1))
    for table, target in zip(tables, of_slice.apart, strict=True):
        start = first_prompt(target.prompts)
        assert table["dice"] == [dice_of(of_slice, start, target.reference)]
        first = [table[name][0] for name in ("row", "column", "label")]
        assert first == ([None] * 3 if protocol == "box_only" else [*start.points_rc[0], 1])


@pytest.mark.parametrize("mask_prompts", [True, False])
def test_clicks_refine_the_last_logits(sam_slice, mask_prompts):
    options = options_of("clicks", clicks=3, objects="together", mask_prompts=mask_prompts)
    (table,) = clicks.explore(sam_slice, options)
    prompts = first_prompt(sam_slice.together.prompts)
    decoded = sam_slice.decode([prompts])
    again = replace(
        prompts,
        points_rc=np.array([[table["row"][n], table["column"][n]] for n in range(2)]),
        labels=np.array(table["label"][:2]),
    )
    refined = sam_slice.decode([again], decoded.mask_logits if mask_prompts else None)
    assert table["dice"][1] == dice(refined.masks[0].numpy(), sam_slice.masks != 0)


def test_clicks_end_when_the_mask_is_the_reference_and_keep_its_dice():
    masks = np.zeros((60, 60), np.uint8)
    masks[20:34, 10:44] = 1
    of_slice = disc_slice(masks, masks > 0)
    options = options_of("clicks", clicks=20, targets=(0.5, 0.9, 1.0))
    (table,) = clicks.explore(of_slice, options)
    assert table["dice"][-1] == 1
    assert len(table["dice"]) < 20
    lines = [{"index": 0, "tables": [table]}]
    lines += [{"index": 1, "tables": [table | {"dice": [0.6] * len(table["dice"])}]}]
    summary = {name: value for name, _, value in clicks.summarize(values_table(lines), options)}
    mean = [(value + 0.6) / 2 for value in table["dice"]]
    assert summary["mean_dice_click_1"] == mean[0]
    assert summary["mean_dice_click_20"] == summary["final_dice"] == 0.8
    whole = mean + [0.8] * (20 - len(mean))
    middles = [(left + right) / 2 for left, right in pairwise(whole)]
    assert summary["area_under_curve"] == pytest.approx(np.mean(middles))
    assert (summary["reached_1"], summary["never_1"]) == (1, 1)
    assert summary["mean_clicks_to_1"] == len(table["dice"])
    assert (summary["reached_0.5"], summary["never_0.5"]) == (2, 0)


def test_a_target_that_no_slice_reaches_has_no_mean():
    table = {"object": "all", "clicks": [1, 2], "dice": [0.1, 0.2]}
    options = options_of("clicks", clicks=2, targets=(0.9,))
    values = values_table([{"index": 0, "tables": [table]}])
    summary = {name: value for name, _, value in clicks.summarize(values, options)}
    assert summary["never_0.9"] == 1
    assert pd.isna(summary["mean_clicks_to_0.9"])


@pytest.mark.parametrize("objects", ["together", "apart"])
def test_the_best_is_never_below_its_start(sam_slice, objects):
    of_slice = replace(sam_slice, objects=objects)
    tables = best.explore(of_slice, options_of("best", budget=40))
    gains = []
    for table, target in zip(tables, of_slice.targets, strict=True):
        start = dice_of(of_slice, target.prompts, target.reference)
        assert table["start_dice"] == start
        assert table["evaluations"] == 40
        gains.append(table["dice"][0] - start)
    assert min(gains) >= 0 < max(gains)


def test_united_masks_are_those_of_the_prompts(sam_slice):
    sets = [[target.prompts for target in sam_slice.apart]] * 2 + [[sam_slice.together.prompts]]
    (overlaps,) = sam_slice.evaluate(sets * 11, sam_slice.masks != 0)
    masks = sam_slice.decode([target.prompts for target in sam_slice.apart]).masks.any(0)
    assert overlaps[1] == overlap(masks.numpy(), sam_slice.masks != 0)
    assert overlaps == overlaps[:3] * 11


def test_prompts_of_an_object_alone_know_no_others(sam_slice):
    only = np.where(sam_slice.masks == 2, 2, 0)
    np.testing.assert_array_equal(
        sam_slice.apart[1].prompts.points_rc, make_prompts(only, PROTOCOLS["paper"]).points_rc
    )


def test_an_object_is_measured_also_where_it_is_alone(sam_slice):
    alone = replace(sam_slice, masks=np.where(sam_slice.masks == 2, 2, 0))
    tables = click_map.explore(alone, options_of("map", step_pixels=20))
    assert [each["object"] for each in tables] == ["all", "2"]
    assert tables[0]["dice"] == tables[1]["dice"]
    of_one_label = replace(alone, names={2: "2"})
    assert click_map.explore(of_one_label, options_of("map", step_pixels=20)) == tables[:1]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("clicks", {"prompts": ("paper", "no_box")}),
        ("map", {"prompts": ("paper", "box_only"), "alone": True}),
        ("map", {"points": "centroid"}),
        ("clicks", {"box": False}),
        ("negative_map", {"negative": ("slice_center",)}),
    ],
)
def test_prompt_options_that_a_kind_replaces_are_refused(kind, options):
    with pytest.raises(InputError, match="replaces what"):
        options_of(kind, **options)


def test_prompt_options_that_a_kind_uses_are_accepted():
    assert len(options_of("clicks", prompts=("paper", "box_only")).protocols) == 2
    assert len(options_of("map", prompts=("paper", "no_box", "no_negative")).protocols) == 3
    assert len(options_of("jitter", prompts=("paper", "points")).protocols) == 2
