"""The direction of imports between the folders of the package."""

import ast

import pytest
from conftest import ROOT

ALLOWED = {
    "utils": {"utils"},
    "prompts": {"prompts"},
    "data": {"data", "utils"},
    "segmenters": {"segmenters", "prompts", "utils"},
    "study": {"study", "data", "prompts", "segmenters", "utils"},
    "synthetic": {"synthetic", "data", "prompts", "segmenters", "utils"},
    "summary": {"summary", "study", "data", "prompts", "utils"},
}
MODULES = sorted((ROOT / "sam_lungs").glob("*/**/*.py"))


def imported_folders(source: str) -> set[str]:
    """Return the folders of sam_lungs that a module imports from."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in names if name.startswith("sam_lungs.")}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_imports_only_from_folders_below_it(path):
    folder = path.relative_to(ROOT / "sam_lungs").parts[0]
    assert imported_folders(path.read_text()) <= ALLOWED[folder]


def test_every_folder_has_a_rule():
    assert {path.relative_to(ROOT / "sam_lungs").parts[0] for path in MODULES} == ALLOWED.keys()
