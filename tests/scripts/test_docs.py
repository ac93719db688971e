"""The documentation against the code."""

import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import ROOT, chest, save_nifti

from docs.options import PAGE, options_page, options_table
from sam_lungs.segmenters.families import FAMILIES
from sam_lungs.utils.cli import option

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("*/*.md"))]
# Options that the pages name of pip, of containers, and of the authors' code; a spelling of ours.
OTHER_PROGRAMS = {
    "--editable",
    *("--configfile", "--profile", "--resources", "--unlock"),
    *("--array", "--cpus-per-task", "--gpus", "--mem", "--requeue", "--time"),
    *("--processes", "--volumes"),
    *("--bind", "--build-arg", "--cleanenv", "--nv", "--rm", "--user"),
    *("--apply_windowing", "--swap_axes", "--use_bounding_box", "--use_masks_contours"),
    "--dry-run",
}


def test_options_page_is_up_to_date():
    assert PAGE.read_text() == options_page(), "run: python -m docs.options"


def test_the_table_has_a_row_per_option():
    @dataclass
    class Example:
        image_path: list[Path] = option("images", group="input", short="-i")
        box: bool = option("give the box", True)
        steps: int = option("even", 0)
        kind: str = option("which", "one", choices=("one", "two"))

    assert options_table(Example).splitlines()[2:] == [
        "| `-i`, `--image_path` | required | images |",
        "| `--box`, `--no_box` |  | give the box |",
        "| `--steps` | `0` | even |",
        "| `--kind` | `one` | which (`one`, `two`) |",
    ]


def test_readme_is_short():
    assert len(ROOT.joinpath("README.md").read_text().split()) <= 1000


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_existing_files(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_heading_is_there_twice(page):
    headings = re.findall("^#+ .*", page.read_text(), re.MULTILINE)
    assert len(set(headings)) == len(headings)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_named_scripts_and_pages_exist(page):
    folders = "scripts|docs|sam_lungs|tests|benchmarks"
    for name in re.findall(rf"(?:{folders})/[\w/]+\.\w+", page.read_text()):
        assert (ROOT / name).exists() or (page.parent / name).exists(), name


def test_named_options_exist():
    known = set(re.findall(r"--\w+", options_page())) | OTHER_PROGRAMS
    for script in ROOT.glob("scripts/*.sh"):
        known |= set(re.findall(r"--\w+", script.read_text()))
    for page in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        named = set(re.findall(r"(?<![-\w])--\w[\w-]*", page.read_text()))
        assert named <= known, (page.name, named - known)


def test_named_extras_exist():
    with (ROOT / "pyproject.toml").open("rb") as file:
        extras = tomllib.load(file)["project"]["optional-dependencies"]
    pages = "".join(page.read_text() for page in PAGES)
    assert set(re.findall(r"pip install '?\.\[(\w+)\]", pages)) == extras.keys()


def test_python_examples_run(tmp_path, monkeypatch, capsys):
    page = ROOT.joinpath("docs/python.md").read_text()
    image, masks = chest()
    monkeypatch.chdir(tmp_path)
    save_nifti(tmp_path / "image.nii.gz", image)
    save_nifti(tmp_path / "masks.nii.gz", masks)
    exec("\n".join(re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)), {})
    assert "predicted IoU" in capsys.readouterr().out
    assert (tmp_path / "masks_again.nii.gz").exists()


def test_models_page_has_every_family():
    sections = ROOT.joinpath("docs/models.md").read_text().split("\n## ")
    families_table = next(each for each in sections if each.startswith("Families\n"))
    rows = {line.split(" | ")[0]: line for line in families_table.splitlines()}
    for name, family in FAMILIES.items():
        *_, prompts, licence = rows[f"| `{name}`"].rstrip(" |").split(" | ")
        assert set(prompts.split(", ")) == family.prompt_kinds
        assert licence == family.licence
