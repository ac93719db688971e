"""The options of process_image.py, and their combinations."""

from pathlib import Path

import pytest

from sam_lungs.prompts.protocols import PROTOCOLS, PromptProtocol
from sam_lungs.study.options import Options, parse_count, parse_metrics, parse_rows
from sam_lungs.utils.errors import InputError

PAIR = [Path("image.npy")], [Path("masks.npy")]


def test_the_defaults_are_those_of_the_paper():
    options = Options(*PAIR)
    assert options.protocols == {"": PROTOCOLS["paper"]}
    assert (options.model, options.precision, options.window) == ("vit_l", "float32", "auto")
    assert options.metrics == ("jaccard", "dice")


def test_prompt_options_make_a_protocol():
    given = {"points": "centroid", "negative_offset": 45, "box": False}
    assert Options(*PAIR, **given).protocols == {
        "": PromptProtocol("centroid", "box_center", 45, False)
    }
    assert Options(*PAIR, prompts=("paper", "no_box")).protocols == {
        "paper": PROTOCOLS["paper"],
        "no_box": PROTOCOLS["no_box"],
    }


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"prompts": ("paper",), "box": False}, "--prompts replaces the other"),
        ({"prompts": ("paper",), "points": "contours"}, "--prompts replaces the other"),
        (
            {"negative": "none", "negative_offset": 45},
            "--negative_offset has no effect with --negative none",
        ),
        ({"embeddings_precision": "float16"}, "--embeddings_precision has no effect; add --emb"),
        ({"tolerance_mm": 2.0}, "--tolerance_mm has no effect; add --metrics nsd"),
        ({"slice": 1, "save_masks": True}, "--save_masks has no effect with --slice"),
        ({"slice": 1, "overwrite": True}, "--overwrite has no effect with --slice"),
        ({"slice": 1, "metrics": ("volume_dice",)}, "volume_dice has no value with --slice"),
    ],
)
def test_options_without_effect_in_their_combination_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        Options(*PAIR, **given)


def test_each_image_needs_masks():
    with pytest.raises(InputError, match="1 images but 2 masks"):
        _ = Options(PAIR[0], PAIR[1] * 2).pairs


@pytest.mark.parametrize("text", ["nsd", "nsd,dice", "jaccard,dice,nsd,nsd"])
def test_metrics_that_make_the_same_tables_are_the_same_option(text):
    assert parse_metrics(text) == ("jaccard", "dice", "nsd")


@pytest.mark.parametrize("parse", [parse_count, parse_rows])
@pytest.mark.parametrize("text", ["", "one", "1.5", "1" + 9 * "0", 5000 * "9"])
def test_numbers_that_would_overflow_are_refused(parse, text):
    assert parse("999999999") == 999_999_999
    with pytest.raises(InputError, match="at most 9 digits"):
        parse(text)


def test_rows_may_be_negative():
    assert parse_rows("-45") == -45
