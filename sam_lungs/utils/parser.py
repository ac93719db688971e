"""argparse, with errors of one line that suggest what was meant."""

import argparse
import difflib
import re
from collections.abc import Sequence
from typing import Any, get_origin

from sam_lungs.utils.errors import InputError


def takes_several(hint: object) -> bool:
    """Return whether an option with this type takes several values, separated by spaces."""
    return get_origin(hint) in (list, Sequence)


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
            nearest = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {nearest[0]}?" if nearest else "--help lists the options"
            return f"unknown option {name}; {hint}"
        place = words.index(extra)
        before = [at for at in range(place) if words[at].partition("=")[0] in known]
        if not before:
            return f"{extra}: belongs to no option; --help lists the options"
        name, _, value = words[before[-1]].partition("=")
        values = [value] if value else []
        for word in words[before[-1] + 1 :]:
            if word.startswith("-"):
                break
            values.append(word)
        if "," in (known[name].metavar or ""):
            return f"use commas: {name} {','.join(values)}"
        return (
            f"{extra}: belongs to no option; if it belongs to {name}, use quotes: {name}"
            f' "{" ".join(values)}"'
        )


def _with_underscores(text: str) -> str:
    if not text.startswith("--"):
        return text
    name, equals, value = text[2:].partition("=")
    return f"--{name.replace('-', '_')}{equals}{value}"
