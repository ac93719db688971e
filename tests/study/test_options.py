"""The options of process_image.py, and their combinations."""

import sys
from dataclasses import replace
from pathlib import Path

import pytest

from sam_lungs.data.case_files import CaseFiles, Reading
from sam_lungs.prompts.protocols import PROTOCOLS, PromptProtocol
from sam_lungs.study.input_options import parse_allow, parse_labels, parse_spacing
from sam_lungs.study.measurement_options import parse_metrics, parse_tolerances
from sam_lungs.study.options import (
    PAPER,
    Options,
    parse_count,
    parse_layers,
    parse_models,
    parse_rows,
)
from sam_lungs.utils.cli import parse_options
from sam_lungs.utils.errors import InputError

PAIR = [Path("image.npy")], [Path("masks.npy")]


def test_the_defaults_are_those_of_the_paper():
    options = Options(*PAIR)
    assert options.protocols == {"": PROTOCOLS["paper"]}
    assert (options.model, options.precision, options.allow) == ("vit_l", "float32", ())
    assert [files.reading for files in options.case_files] == [Reading()]
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
        (
            {"negative": [(1, 2)], "negative_offset": 45},
            "--negative_offset has no effect with --negative none or points",
        ),
        ({"negative": ["none", "box_center"]}, "--negative takes one name, or only points"),
        ({"negative": [(1, 2), "none"]}, "--negative takes one name, or only points"),
        ({"prompts": ("paper",), "negative": [(1, 2)]}, "--prompts replaces the other"),
        ({"points": "none", "box": False}, "--points none needs the box; leave --no_box out"),
        ({"prompts": ("paper",), "points": "none"}, "--prompts replaces the other"),
        ({"model": "vit_b,medsam", "checkpoint": Path("a.pth")}, "--checkpoint is for one model"),
        ({"model": "vit_b,medsam", "model_folder": Path("a")}, "--model_folder is for one model"),
        ({"draw": ("mask",)}, "--draw has no effect; add --debug"),
        ({"embeddings_precision": "float16"}, "--embeddings_precision has no effect; add --emb"),
        ({"tolerance_mm": (2.0,)}, "--tolerance_mm has no effect; add --metrics nsd"),
        ({"metrics": ("dice_3d",)}, "metrics in 3-D are of all slices; add --empty_slices nearest"),
        ({"slice": 1, "save_masks": True}, "--save_masks has no effect with --slice"),
        ({"slice": 1, "overwrite": True}, "--overwrite has no effect with --slice"),
        (
            {"slice": 1, "metrics": ("lung_slices_dice",)},
            "lung_slices_dice has no value with --slice",
        ),
        ({"metrics": ("one_click",)}, "one_click needs one point per prompt; add --objects apart"),
        ({"metrics": ("one_click",), "objects": "apart"}, "--prompts points or centroid_points"),
        ({"metrics": ("one_click",), "prompts": ("points",)}, "add --objects apart"),
        (
            {"metrics": ("one_click",), "objects": "apart", "prompts": ("points", "paper")},
            "one_click needs one point per prompt",
        ),
        ({"dataset": Path("a.yml")}, "leave out -i and -m"),
        ({"cases": ("a",)}, "--cases has no effect; add --dataset"),
        ({"masks_file_path": []}, "give images with -i and their masks with -m, or --dataset"),
        ({"image_file_path": []}, "give images with -i and their masks with -m, or --dataset"),
        ({"image_file_path": PAIR[0] * 2}, "2 images but 1 masks"),
        ({"masks_file_path": PAIR[1] * 2, "labels": ["1"]}, "--labels has no effect with a masks"),
        (
            {"image_file_path": PAIR[0] * 2, "masks_file_path": PAIR[1] * 2, "series": "1.2"},
            "--series is for one image",
        ),
    ],
)
def test_options_without_effect_in_their_combination_are_refused(given, message):
    with pytest.raises(InputError, match=message):
        Options(**{"image_file_path": PAIR[0], "masks_file_path": PAIR[1], **given})


def test_one_click_takes_one_point_per_label():
    asked = {"metrics": parse_metrics("one_click"), "objects": "apart"}
    assert asked["metrics"] == ("jaccard", "dice", "one_click")
    assert Options(*PAIR, **asked, prompts=("points", "centroid_points")).one_click
    assert Options(*PAIR, **asked, negative="none", box=False, model="vit_b,vit_l").one_click


def test_each_model_has_its_options_and_folders():
    (same,) = Options(*PAIR, prompts=("paper",)).for_each_model()
    assert (same.model, list(same.protocols)) == ("vit_l", ["paper"])
    hub_model = f"hub:owner/name@{'0' * 40}"
    options = Options(*PAIR, model=f"vit_b,{hub_model}", debug=True)
    folders = ["vit_b", f"owner--name@{'0' * 40}"]
    for one, model, folder in zip(
        options.for_each_model(), ("vit_b", hub_model), folders, strict=True
    ):
        assert (one.model, one.debug) == (model, True)
        assert one.protocols == {folder: PAPER}
        assert one.for_each_model() == [one]
    protocols = replace(options, prompts=("paper", "no_box")).for_each_model()[0].protocols
    assert protocols == {"vit_b/paper": PAPER, "vit_b/no_box": PROTOCOLS["no_box"]}


def test_a_folder_of_a_model_needs_no_name():
    assert Options(*PAIR, model_folder=Path("a")).model is None
    assert Options(*PAIR, model="medsam", model_folder=Path("a")).model == "medsam"


def test_models_are_parsed():
    assert parse_models("vit_b,medsam") == "vit_b,medsam"
    for text in ("", "vit_b,", "vit_b,vit_b", "vit_b, medsam", "hub:owner/name@main"):
        with pytest.raises(InputError):
            parse_models(text)


def test_one_image_may_have_a_masks_file_per_object_and_several_have_one_each():
    left, right = Path("left.nii"), Path("right.nii")
    (files,) = Options(PAIR[0], [left, right]).case_files
    assert files == CaseFiles(PAIR[0][0], (left, right))
    assert Options([Path("a.npy"), Path("b.npy")], [left, right]).case_files == [
        CaseFiles(Path("a.npy"), (left,)),
        CaseFiles(Path("b.npy"), (right,)),
    ]


def test_options_for_reading_are_passed_to_every_case():
    given = {
        "window": "40,400",
        "align": "voxels",
        "labels": ["left=10,11", "right=12"],
        "spacing_mm": (0.7, 0.8),
        "series": "1.2.3",
        "allow": ("saturated",),
    }
    (files,) = Options(*PAIR, **given).case_files
    assert files.reading == Reading(
        "40,400",
        "voxels",
        {"left": (10, 11), "right": (12,)},
        (0.7, 0.8),
        "1.2.3",
        ("saturated",),
    )


@pytest.fixture
def dataset(tmp_path):
    """A dataset file with two cases."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for kind in ("ct", "lungs"):
            (tmp_path / name / f"{kind}.nii.gz").touch()
    path = tmp_path / "dataset.yml"
    path.write_text(
        'images: "{case}/ct.nii.gz"\nmasks: "{case}/lungs.nii.gz"\nwindow: lung\nalign: affine\n'
    )
    return path


def test_a_dataset_file_gives_the_cases_and_how_they_are_read(dataset):
    options = Options(dataset=dataset)
    assert [files.name for files in options.case_files] == ["a", "b"]
    first, _ = options.case_files
    assert first.image_path == dataset.parent / "a" / "ct.nii.gz"
    assert first.masks_paths == (dataset.parent / "a" / "lungs.nii.gz",)
    assert first.reading == Reading(window="lung", align="affine")
    assert first.root == dataset.parent
    assert options.problems == []
    assert [files.name for files in Options(dataset=dataset, cases=("b",)).case_files] == ["b"]


def test_options_replace_those_of_the_dataset_file(dataset):
    given = {"window": "none", "align": "auto", "labels": ["3"], "allow": ("saturated",)}
    for files in Options(dataset=dataset, **given).case_files:
        assert files.reading == Reading("none", "auto", {"3": (3,)}, allow=("saturated",))


@pytest.mark.parametrize(
    ("texts", "objects"),
    [
        ([], None),
        (["10,11"], {"10": (10,), "11": (11,)}),
        (["10", "11"], {"10": (10,), "11": (11,)}),
        (["left=10,11", "right=12"], {"left": (10, 11), "right": (12,)}),
    ],
)
def test_labels_are_objects_or_merged_to_named_objects(texts, objects):
    assert parse_labels(texts) == objects


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        *[([text], "a label is an integer, at least 1") for text in ("", "a", "1,", "0", "-1,2")],
        *[([text], "--labels ") for text in ("=1", "left=", "left=1=2", "1.5", "1 2", "7=8")],
        (["\udcff=1"], "--labels "),
        (["1" * 10], "a label is an integer"),
        (["1,1"], "1 is given twice"),
        (["1", "1"], "1 is given twice"),
        (["left=1,2", "right=2"], "2 is given twice"),
        (["left=1,1"], "1 is given twice"),
        (["left=1", "left=2"], "left is given twice"),
        (["left=1", "2"], "give every object a name"),
    ],
)
def test_other_labels_are_refused(texts, message):
    with pytest.raises(InputError, match=message):
        parse_labels(texts)
    with pytest.raises(InputError, match=message):
        Options(*PAIR, labels=texts)


def test_a_spacing_has_two_or_three_sizes():
    assert parse_spacing("0.7,0.8") == (0.7, 0.8)
    assert parse_spacing("0.7,0.8,5") == (0.7, 0.8, 5)
    for text in ("", "1", "1,2,3,4", "0,1", "-1,1", "nan,1", "inf,1", "a,b", "1,,2"):
        with pytest.raises(InputError, match="give ROWS,COLUMNS"):
            parse_spacing(text)


def test_only_known_faults_can_be_allowed():
    assert parse_allow("saturated") == ("saturated",)
    with pytest.raises(InputError, match="unknown fault 'everything'; the faults are "):
        parse_allow("saturated,everything")


def test_the_negative_option_takes_a_name_or_points(monkeypatch):
    def parsed(*words: str) -> PromptProtocol:
        command = ["process_image.py", "-i", "image.npy", "-m", "masks.npy", *words]
        monkeypatch.setattr(sys, "argv", command)
        return parse_options(Options, "", "").protocols[""]

    assert parsed() == PAPER
    assert parsed("--negative", "slice_center") == PromptProtocol(negative="slice_center")
    points = parsed("--negative", "330,252", "0,7", "--no_box")
    assert points == PromptProtocol(negative=((330, 252), (0, 7)), box=False)
    assert parsed("--negative", "5,6").negative == ((5, 6),)
    for text in ("center", "1", "-1,2", "1,2,3", "1.5,2", "1 2", "9999999999,1"):
        with pytest.raises(
            InputError, match="give box_center, none, slice_center, or pixels as ROW,COLUMN"
        ):
            parsed("--negative", text)


def test_layers_are_in_a_fixed_order_and_known():
    assert parse_layers("box,mask,mask") == ("mask", "box")
    with pytest.raises(InputError, match="unknown layer 'Box'; the layers are mask, contours"):
        parse_layers("mask,Box")


@pytest.mark.parametrize("text", ["nsd", "nsd,dice", "jaccard,dice,nsd,nsd"])
def test_metrics_that_make_the_same_tables_are_the_same_option(text):
    assert parse_metrics(text) == ("jaccard", "dice", "nsd")


def test_tolerances_are_sorted_and_have_names_of_their_own():
    assert parse_tolerances("5,1,2.5,1") == (1, 2.5, 5)
    for text in ("", "near", "-1", "nan", "inf", "1,,2", "1,1.0000001"):
        with pytest.raises(InputError, match="give numbers of mm, at least 0"):
            parse_tolerances(text)


@pytest.mark.parametrize("parse", [parse_count, parse_rows])
@pytest.mark.parametrize("text", ["", "one", "1.5", "1" + 9 * "0", 5000 * "9"])
def test_numbers_that_would_overflow_are_refused(parse, text):
    assert parse("999999999") == 999_999_999
    with pytest.raises(InputError, match="at most 9 digits"):
        parse(text)


def test_rows_may_be_negative():
    assert parse_rows("-45") == -45
