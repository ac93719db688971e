"""Slips on the command line: values with spaces where commas are needed, and the reverse."""

import shlex
import sys

import pytest
from server import error_of

from sam_lungs.study.explore.options import ExploreOptions
from sam_lungs.study.options import Options
from sam_lungs.study.score_options import ScoreOptions
from sam_lungs.summary.patients import PatientOptions
from sam_lungs.utils.cli import parse_options


@pytest.fixture
def parsed(monkeypatch):
    def parse(options_class: type, words: str) -> object:
        monkeypatch.setattr(sys, "argv", ["script.py", *shlex.split(words)])
        return parse_options(options_class, "", "")

    return parse


@pytest.mark.parametrize(
    ("options_class", "words", "remedy"),
    [
        (Options, "--prompts paper no_box", "--prompts paper,no_box"),
        (Options, "--prompts=paper no_box points", "--prompts paper,no_box,points"),
        (Options, "--model vit_b vit_l --report", "--model vit_b,vit_l"),
        (Options, "--report --metrics nsd hd95", "--metrics nsd,hd95"),
        (Options, "--cases a b c", "--cases a,b,c"),
        (Options, "--allow overlap saturated", "--allow overlap,saturated"),
        (Options, "--tolerance-mm 1 2 5", "--tolerance_mm 1,2,5"),
        (Options, "--prompt_every 5 10", "--prompt_every 5,10"),
        (Options, "--draw mask box", "--draw mask,box"),
        (ScoreOptions, "--metrics nsd dice_3d", "--metrics nsd,dice_3d"),
        (ExploreOptions, "clicks --targets 0.8 0.9", "--targets 0.8,0.9"),
        (ExploreOptions, "jitter --sigma_mm 1 2", "--sigma_mm 1,2"),
        (PatientOptions, "--dataset d.yml --cases a b", "--cases a,b"),
        # The word is also the value of another option.
        (Options, "--model vit_b --prompts paper vit_b", "--prompts paper,vit_b"),
        (Options, "--prompts paper no_box --nope x", "--prompts paper,no_box"),
    ],
)
def test_values_without_commas(parsed, options_class, words, remedy):
    assert error_of(parsed, options_class, words) == f"use commas: {remedy}"


def test_a_space_after_a_comma(parsed):
    words = "-i a -m b --prompts paper, no_box"
    message = "--prompts paper,: ends with a comma; leave it out, or the space after it"
    assert error_of(parsed, Options, words) == message
    # Between quotes the value is complete.
    options = parsed(Options, "-i a -m b --prompts 'paper, no_box'")
    assert options.prompts == ("paper", "no_box")


def test_a_value_with_a_space_and_without_quotes(parsed):
    message = error_of(parsed, Options, "-i a -m b --output_folder my results --report")
    assert message == (
        "results: belongs to no option; if it belongs to --output_folder, use quotes:"
        ' --output_folder "my results"'
    )
    # Quotes would not help.
    for words in ("a.nii b.nii", "--report a.nii", "--slice 1 a.nii", "--device cpu a.nii"):
        message = error_of(parsed, Options, words)
        assert message == "a.nii: belongs to no option; --help lists the options"
