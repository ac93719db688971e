"""Texts about volumes -> sentences that say what is common once, and name what differs."""

import csv
import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from pathlib import Path

CITATIONS = Path(__file__).with_name("citations.csv")
Volume = tuple[str, str]  # names of the run and the volume


class References:
    """Numbers the citations of `citations.csv` in the order in which they are cited."""

    def __init__(self) -> None:
        with open(CITATIONS, encoding="utf-8", newline="") as file:
            self._known = {row["key"]: row["citation"] for row in csv.DictReader(file)}
        self._cited: list[str] = []

    def cite(self, *keys: str) -> str:
        """Return the numbers of the citations as " [1, 2]"; a key without one is left out."""
        citations = [self._known[key] for key in keys if key in self._known]
        # By text, because two keys may have one citation.
        self._cited += [each for each in dict.fromkeys(citations) if each not in self._cited]
        numbers = sorted({self._cited.index(each) + 1 for each in citations})
        return f" [{', '.join(map(str, numbers))}]" if numbers else ""

    @property
    def lines(self) -> list[str]:
        """The numbered citations."""
        return [f"{number}. {citation}." for number, citation in enumerate(self._cited, 1)]


def say(texts: dict[Volume, str]) -> str:
    """Return the texts of volumes as sentences.

    texts: clauses without a full stop; an empty one is left out. One that holds for all volumes is
        a sentence. Otherwise each begins with the runs or volumes that it holds for.
    """
    groups = defaultdict(list)
    for volume, text in texts.items():
        groups[text].append(volume)
    if len(groups) == 1:
        return sentence(*groups)
    said = [f"in {places(groups[text], texts)}, {text}" for text in groups if text]
    return " ".join(map(sentence, said))


def places(volumes: Iterable[Volume], among: Collection[Volume]) -> str:
    """Return the names of volumes, or of their runs, or of the few others, as code.

    among: the volumes of all runs, which include `volumes`.
    """
    chosen, of_run = defaultdict(list), defaultdict(list)
    for run, image in volumes:
        chosen[run].append(image)
    for run, image in among:
        of_run[run].append(image)
    whole = [run for run in chosen if len(chosen[run]) == len(of_run[run])]
    if len(whole) == len(of_run):
        return "all volumes"
    runs_of = defaultdict(list)
    for run in chosen:
        if run not in whole:
            runs_of[_named(chosen[run], of_run[run])].append(run)
    parts = [_runs(whole)] if whole else []
    for names, runs in runs_of.items():
        of = "every run" if len(runs) == len(of_run) else _runs(runs)
        parts.append(f"{names} of {of}" if len(of_run) > 1 else names)
    return listed(parts)


def sentence(text: str) -> str:
    """Return a clause as a sentence; an empty one stays empty."""
    return f"{text[0].upper()}{text[1:]}." if text else ""


def code(text: object) -> str:
    """Return a name as Markdown code, on one line; it may hold backticks."""
    line = " ".join(str(text).split())
    if "`" not in line:
        return f"`{line}`"
    fence = "`" * (1 + max(map(len, re.findall("`+", line))))
    return f"{fence} {line} {fence}"


def listed(parts: Iterable[str]) -> str:
    """Return "a", "a and b" or "a, b and c"."""
    *first, last = parts
    return f"{', '.join(first)} and {last}" if first else last


def count(number: int, noun: str) -> str:
    """Return a number with its noun, in the plural unless it is 1."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _named(images: list[str], of_run: list[str]) -> str:
    """Return the names of images, or those of the others when these are fewer."""
    if 2 * len(images) <= len(of_run):
        return listed(map(code, images))
    others = (image for image in of_run if image not in images)
    return f"all volumes but {listed(map(code, others))}"


def _runs(names: list[str]) -> str:
    return f"run{'s' * (len(names) > 1)} {listed(map(code, names))}"


def table(header: Iterable[str], rows: Iterable[Iterable[object]]) -> str:
    """Return a Markdown table."""
    lines = [tuple(header), *map(tuple, rows)]
    lines.insert(1, ("---",) * len(lines[0]))
    cells = ((str(cell).replace("|", r"\|").replace("\n", " ") for cell in line) for line in lines)
    return "".join(f"| {' | '.join(line)} |\n" for line in cells)
