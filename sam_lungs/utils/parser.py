"""argparse, with errors of one line that suggest what was meant."""

import argparse
import difflib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_origin

from sam_lungs.utils.errors import InputError


def takes_several(hint: object) -> bool:
    """Return whether an option with this type takes several values, separated by spaces."""
    return get_origin(hint) in (list, Sequence)


def nearest_option(name: str, known: Iterable[str]) -> str:
    """Return the end of a message about an unknown option: the most similar one, if any."""
    nearest = difflib.get_close_matches(name, known, 1)
    return f"did you mean {nearest[0]}?" if nearest else "--help lists the options"


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes raise `InputError`; names may have `-` in place of `_`."""

    def __init__(self, **options: Any) -> None:
        super().__init__(
            allow_abbrev=False,
            argument_default=argparse.SUPPRESS,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            **options,
        )
        # Otherwise argparse treats the value in `--window -650,1500` as an option.
        self._negative_number_matcher = re.compile(r"-\.?\d.*$")

    def values(self, words: Sequence[str]) -> dict[str, Any]:
        """Return the values of the options that are given, by name."""
        words = [_with_underscores(word) for word in words]
        namespace, extras = self.parse_known_args(words)
        if extras:
            raise InputError(self._unrecognized(words, extras[0]))
        # An empty list is a positional argument that was not given.
        return {name: value for name, value in vars(namespace).items() if value != []}

    def error(self, message: str) -> None:
        """Raise `InputError`."""
        raise InputError(f"{' '.join(message.split())}; see --help")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        # Without a positional argument, Python 3.11 checks the empty list against the choices.
        if value != []:
            super()._check_value(action, value)

    def _unrecognized(self, words: list[str], extra: str) -> str:
        """Return the message for the first word that no option takes."""
        known = self._option_string_actions
        if extra.startswith("-"):
            name = extra.partition("=")[0]
            return f"unknown option {name}; {nearest_option(name, known)}"
        # The words after each option; "" stands for a value where an option takes none.
        groups = [("", [""])]
        for word in words:
            name, _, value = word.partition("=")
            if name in known:
                groups.append((name, [""] if known[name].nargs == 0 else [value] if value else []))
            elif word.startswith("--"):
                groups.append(("", [""]))
            else:
                groups[-1][1].append(word)
        name, values = next((group for group in groups if extra in group[1][1:]), groups[0])
        if name and "," in (known[name].metavar or ""):
            return f"use commas: {name} {','.join(values)}"
        hint = "--help lists the options"
        if name and known[name].type in (str, Path) and not known[name].choices:
            hint = f'if it belongs to {name}, use quotes: {name} "{" ".join(values)}"'
        return f"{extra}: belongs to no option; {hint}"


def _with_underscores(text: str) -> str:
    if not text.startswith("--"):
        return text
    name, equals, value = text[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
