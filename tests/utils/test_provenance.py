import textwrap

import pytest

from sam_lungs.utils import provenance
from sam_lungs.utils.provenance import code_sha256, difference

MODULE = '''
"""A module."""

import math  # a comment

SIZE = 3


class Area:
    """A class."""

    factor: float = 2.0
    """An attribute."""

    def of(self, radius: float) -> float:
        """Return the area.

        radius: in mm.
        """
        # A comment.
        return self.factor * math.pi * radius**2


def nothing():
    """Do nothing."""
'''
UNCHANGED = {
    "comment": ("# A comment.", "# Reworded."),
    "comment removed": ("import math  # a comment", "import math"),
    "comment added": ("SIZE = 3", "SIZE = 3  # pixels"),
    "module docstring": ('"""A module."""', ""),
    "class docstring": ('"""A class."""', '"""Another text, longer than the one before."""'),
    "attribute docstring": ('    """An attribute."""\n', ""),
    "function docstring": ("radius: in mm.", "radius: in millimetres."),
    "blank lines": ("SIZE = 3\n", "\n\n\nSIZE = 3\n"),
    "layout": ("self.factor * math.pi * radius**2", "(self.factor * math.pi\n * radius ** 2)"),
}
CHANGED = {
    "number": ("SIZE = 3", "SIZE = 4"),
    "type of a number": ("SIZE = 3", "SIZE = 3.0"),
    "text": ("SIZE = 3", "SIZE = '3'"),
    "name": ("SIZE", "WIDTH"),
    "operator": ("math.pi * radius", "math.pi / radius"),
    "order": ("self.factor * math.pi", "math.pi * self.factor"),
    "statement added": ("SIZE = 3", "SIZE = 3\nSIZE += 0"),
    "statement removed": ("SIZE = 3", ""),
    "default": ("radius: float", "radius: float = 1"),
    "import": ("import math", "import cmath as math"),
}


@pytest.fixture
def sha256_of_module(tmp_path, monkeypatch):
    monkeypatch.setattr(provenance, "PACKAGE_FOLDER", tmp_path)
    (tmp_path / "data").mkdir()

    def sha256_of(code: str, name: str = "data/module.py") -> str:
        (tmp_path / name).write_text(textwrap.dedent(code))
        return code_sha256([name])

    return sha256_of


@pytest.mark.parametrize("edit", UNCHANGED)
def test_comments_docstrings_and_layout_keep_the_hash_of_the_code(sha256_of_module, edit):
    edited = MODULE.replace(*UNCHANGED[edit])
    assert edited != MODULE
    assert sha256_of_module(edited) == sha256_of_module(MODULE)


@pytest.mark.parametrize("edit", CHANGED)
def test_any_other_edit_changes_the_hash_of_the_code(sha256_of_module, edit):
    edited = MODULE.replace(*CHANGED[edit])
    assert edited != MODULE
    assert sha256_of_module(edited) != sha256_of_module(MODULE)


def test_the_hash_depends_on_which_modules_match_and_not_on_the_order(sha256_of_module):
    one = sha256_of_module("SIZE = 1", "data/one.py")
    assert sha256_of_module("SIZE = 1", "data/two.py") != one
    both = code_sha256(["data/*.py"])
    assert both == code_sha256(["data/two.py", "data/one.py", "data/*.py"])
    sha256_of_module("", "data/three.py")
    assert code_sha256(["data/*.py"]) != both


def test_a_pattern_without_a_module_is_a_programming_error():
    with pytest.raises(AssertionError, match="matches no module"):
        code_sha256(["data/no_such_module.py"])


def test_all_modules_can_be_hashed():
    assert len(code_sha256(["**/*.py"])) == 64


def test_differences_name_each_entry_and_shorten_hashes():
    before = {"seed": 1, "code_sha256": "a" * 64, "same": 0}
    now = {"seed": 2, "code_sha256": "b" * 64, "same": 0, "new": "x"}
    assert difference(before, now) == (
        "seed 1 there, 2 now; code_sha256 aaaaaaaaaaaa there, bbbbbbbbbbbb now;"
        " new None there, x now"
    )
