"""The prompts of a file in place of a protocol; those of each rater are a protocol of their own."""

import hashlib
import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from sam_lungs.data.case import Case
from sam_lungs.data.case_files import CaseFiles
from sam_lungs.prompts.volume import SlicePrompts
from sam_lungs.study import drawn
from sam_lungs.study.metrics import SLICE_METRIC, VOLUME_METRIC
from sam_lungs.study.prompts_file import find_misplaced, read_prompts
from sam_lungs.study.results import RAW_DATA_COLUMNS
from sam_lungs.utils.errors import InputError

# By which tables of slices are joined and grouped.
KEYS = ("image", "case", "patient", "subset")
# A kind of a file -> a kind of `segmenters.base.PROMPT_KINDS`.
KINDS = {"positive": "points", "negative": "negative", "box": "box"}


@dataclass(frozen=True, eq=False)
class Replay:
    """The prompts of one rater, in place of a `PromptProtocol`.

    file_name: of the file or folder. cases: {name of a case: {index of a slice: its prompts}}.
    """

    file_name: str
    cases: Mapping[str, Mapping[int, drawn.SlicePrompts]]

    def recorded(self, case: str) -> dict[str, str]:
        """Return what run.json holds of the prompts of a case.

        The SHA-256 is of the prompts and further columns of its slices, whatever else is in the
        file.
        """
        slices = self.cases[case]
        content = [
            [
                index,
                [
                    [each.points_rc.tolist(), each.labels.tolist()]
                    + ([] if each.box_rc is None else each.box_rc.tolist())
                    for each in slices[index].prompts
                ],
                slices[index].further,
            ]
            for index in sorted(slices)
        ]
        sha256 = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return {"prompts_file": self.file_name, "sha256": sha256}

    def faults(self, case: Case, in_3d: bool) -> list[str]:
        """Return a line for each prompt that is not in the image of a case.

        in_3d: there are metrics in 3-D, so that all slices with reference masks need prompts.
        """
        if case.name not in self.cases:
            return []
        *size_rc, count = case.image.array.shape
        slices = self.cases[case.name]
        found = find_misplaced(slices, tuple(size_rc), count)
        without = [index for index in case.lung_slices if index not in slices] if in_3d else []
        if without:
            found.append(
                f"{self.file_name}: has no prompts in slice {without[0]} of {case.name}, which has"
                " reference masks; write some, or leave out the metrics in 3-D"
            )
        return found

    def check_kinds(self, accepted: Collection[str], model: str) -> None:
        """Raise `InputError` for a prompt that a model does not accept, see `check_model`."""
        for case, slices in self.cases.items():
            for index, of_slice in slices.items():
                for each in of_slice.drawn:
                    if KINDS[each.kind] not in accepted:
                        raise InputError(
                            f"{each.where}: {model} accepts {' and '.join(sorted(accepted))}"
                            f" prompts only, not {KINDS[each.kind]}; remove it, or choose another"
                            " --model"
                        )
                if model == "box" and any(one.box_rc is None for one in of_slice.prompts):
                    raise InputError(
                        f"{of_slice.drawn[0].where}: slice {index} of {case} has prompts without a"
                        f" box, and --model {model} fills boxes; draw one, or choose another"
                        " --model"
                    )


class ReplayedPrompts:
    """The prompts of the slices of a volume, with the interface of `prompts.volume.VolumePrompts`.

    cells: {index of a slice: its further columns in `raw_data.csv`, and its `interactions`}.
    """

    def __init__(self, slices: Mapping[int, drawn.SlicePrompts]) -> None:
        self._slices = slices
        self.sources = {index: index for index in sorted(slices)}
        self.cells = {
            index: {"interactions": self.at(index).interactions} | slices[index].further
            for index in slices
        }

    def at(self, index: int) -> SlicePrompts:
        """Return the prompts of a slice; none if the file has none."""
        prompts = self._slices[index].prompts if index in self._slices else []
        return SlicePrompts(prompts, sum(each.interactions for each in prompts))


class Replays(NamedTuple):
    """The prompts of a file for the cases of a study.

    of_raters: by the name of the rater, "" without one; those who prompted a case. unknown: other
    cases of the file.
    """

    of_raters: dict[str, Replay]
    unknown: list[str]


def read_replays(path: Path, cases: Sequence[CaseFiles]) -> Replays:
    """Read a file or folder of prompts.

    Raises `InputError` as `read_prompts` does, and when a further column has the name of a column
    of the results.
    """
    names = {files.name for files in cases}
    raters = read_prompts(path, {str(files.image_path): files.name for files in cases})
    replays, unknown = {}, {}
    for rater, of_rater in raters.items():
        for slices in of_rater.values():
            _check_columns(path, next(iter(slices.values())).further)
        known = {case: slices for case, slices in of_rater.items() if case in names}
        unknown |= dict.fromkeys(case for case in of_rater if case not in names)
        if known:
            replays[rater] = Replay(path.resolve().name, known)
    return Replays(replays, list(unknown))


def _check_columns(path: Path, names: Collection[str]) -> None:
    for name in names:
        is_metric = SLICE_METRIC.fullmatch(name) or VOLUME_METRIC.fullmatch(name)
        if is_metric or name in (*RAW_DATA_COLUMNS, *KEYS):
            raise InputError(
                f"{path}: the column {name} has the name of a column of the results; rename it"
            )
