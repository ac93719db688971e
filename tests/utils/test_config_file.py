"""Options from a file: `--config`."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from server import error_of

from sam_lungs.utils.cli import option, parse_options


def parse_names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


@dataclass(frozen=True)
class Example:
    images: list[Path] = option("images", short="-i")
    kind: Sequence[str] = option("kind", (), positional=True, choices=("map", "clicks"))
    output_folder: Path | None = option("folder", None)
    patients: str | Path | None = option("a table or a pattern", None)
    labels: Sequence[str] = option("labels", ())
    prompts: tuple[str, ...] = option("protocols", (), parse=parse_names, metavar="NAME,NAME")
    window: str = option("window", "auto")
    steps: int = option("steps", 8)
    box: bool = option("box", True)
    dry_run: bool = option("check only", False)


@pytest.fixture
def parsed(tmp_path, monkeypatch):
    """Parse the text of a file, after `images: a`, and a command line."""
    folder = tmp_path / "configs"
    folder.mkdir()

    def parse(text: str, *arguments: str, first: str = "images: a\n") -> Example:
        (folder / "study.yml").write_text(first + text)
        monkeypatch.setattr(
            sys, "argv", ["script.py", "--config", str(folder / "study.yml"), *arguments]
        )
        return parse_options(Example, "An example.", "python script.py -i a")

    return parse


@pytest.mark.parametrize(
    ("text", "values"),
    [
        # Names with - or _, switches, numbers.
        ("dry-run: true", {"dry_run": True}),
        ("dry_run: False\nbox: false", {"box": False}),
        ("steps: 10", {"steps": 10}),
        ("steps: -3", {"steps": -3}),
        # Null keeps the default.
        ("steps: null\nwindow:\nbox: ~", {}),
        # Text as it is written, where YAML 1.1 has other types.
        ("window: no", {"window": "no"}),
        ("window: on", {"window": "on"}),
        ("window: 1:30", {"window": "1:30"}),
        ("window: 1e3", {"window": "1e3"}),
        ("window: 2024-01-02", {"window": "2024-01-02"}),
        ("window: 0.50", {"window": "0.50"}),
        ("window: 'true'", {"window": "true"}),
        ("window: -650,1500", {"window": "-650,1500"}),
        # Commas and lists.
        ("prompts: paper, no_box", {"prompts": ("paper", "no_box")}),
        ("prompts: [paper, no_box]", {"prompts": ("paper", "no_box")}),
        ("prompts: [1, 1.50]", {"prompts": ("1", "1.50")}),
        ("labels: 10,11", {"labels": ["10,11"]}),
        ("labels: 10, 11", {"labels": ["10,11"]}),
        ("labels: left=10,11 right=12", {"labels": ["left=10,11", "right=12"]}),
        ("labels: [10, 11]", {"labels": ["10", "11"]}),
        ("labels: [[10, 11], 12]", {"labels": ["10,11", "12"]}),
        ("labels: {left: [10, 11], right: 12}", {"labels": ["left=10,11", "right=12"]}),
        ("kind: map", {"kind": ["map"]}),
        # Not a file, so a pattern.
        ("patients: '(p_[0-9]+)_.*'", {"patients": "(p_[0-9]+)_.*"}),
    ],
)
def test_values_are_those_of_the_same_words_on_a_command_line(parsed, tmp_path, text, values):
    assert parsed(text) == Example([tmp_path / "configs/a"], **values)


def test_relative_paths_are_relative_to_the_file(parsed, tmp_path, monkeypatch):
    (tmp_path / "patients.csv").touch()
    monkeypatch.setenv("HOME", "/home/me")
    options = parsed(
        "images: [a b.nii, ../c, /d, ~/e]\noutput_folder: out\npatients: ../patients.csv", first=""
    )
    configs = tmp_path / "configs"
    assert options.images == [
        configs / "a b.nii",
        tmp_path / "c",
        Path("/d"),
        Path("/home/me/e"),
    ]
    assert options.output_folder == configs / "out"
    assert options.patients == str(tmp_path / "patients.csv")
    monkeypatch.chdir(configs)
    monkeypatch.setattr(sys, "argv", ["script.py", "--config", "study.yml"])
    assert parse_options(Example, "", "").output_folder == Path("out")


def test_the_command_line_overrules_the_file(parsed):
    text = "images: [a, b]\nkind: map\nprompts: paper\nbox: false\ndry_run: true\nsteps: 1"
    given = ("clicks", "-i", "c", "--prompts", "no_box", "--box", "--no_dry_run", "--steps=2")
    expected = Example([Path("c")], kind=["clicks"], prompts=("no_box",), steps=2)
    assert parsed(text, *given, first="") == expected


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("promts: paper", "unknown option promts; did you mean prompts?"),
        ("no_box: true", "unknown option no_box; write box: false"),
        ("config: other.yml", "unknown option config; --help lists the options"),
        ("i: a", "unknown option i; --help lists"),
        ("steps: 1\nsteps: 2", "steps is given twice"),
        ("labels: {left: 1, left: 2}", "left is given twice"),
        ("dry-run: true\ndry_run: true", "dry_run is given twice"),
        ("dry_run: yes", "dry_run: is a switch; write true or false"),
        ("window: true", "window: takes text; if true is meant, put it between quotes"),
        ("window: [1, 2]", "window: takes no lists"),
        ("output_folder: [a, b]", "output_folder: takes no lists"),
        ("output_folder: {a: b}", "output_folder: takes no lists"),
        ("labels: {left: {a: b}}", "labels: takes no lists"),
        ("prompts: [[[a]]]", "prompts: takes no lists"),
        ("steps: 1:30", "argument --steps: invalid int value: '1:30'"),
        ("kind: best", "argument kind: invalid choice: 'best' (choose from"),
        ("labels: []", "argument --labels: expected at least one argument"),
        ("window: [", "is not YAML"),
        ("window: !!python/object/apply:os.abort []", "is not YAML"),
        ("window: &a [*a]", "is not YAML"),
        ("window: " + "[" * 1000, "is not YAML"),
        ("---\nsteps: 2", "is not YAML"),
    ],
)
def test_a_mistake_is_one_line_with_the_name_of_the_file(parsed, tmp_path, text, words):
    message = error_of(parsed, text)
    assert message.startswith(f"{tmp_path}/configs/study.yml: ")
    assert words in message


@pytest.mark.parametrize("text", ["", "# only a comment\n", "- images\n", "images\n", "null"])
def test_a_file_without_options_is_refused(parsed, text):
    assert "has no `option: value` lines" in error_of(parsed, text, first="")


def test_a_required_option_may_be_in_the_file_or_on_the_command_line(parsed):
    assert parsed("steps: 1", "-i", "b", first="").images == [Path("b")]
    message = error_of(parsed, "steps: 1", first="")
    assert "study.yml: has no images; add it, or give --images" in message


def test_a_missing_file_is_one_line(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["script.py", "-i", "a", "--config=none.yml"])
    assert error_of(parse_options, Example, "", "") == "none.yml: no such file; check the path"
