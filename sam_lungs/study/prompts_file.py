"""Read prompts of one's own: files that `--debug` wrote, edited or not, or a CSV table."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sam_lungs.study.drawn import Raters, SlicePrompts
from sam_lungs.study.prompts_table import read_table
from sam_lungs.study.prompts_yaml import read_yaml
from sam_lungs.utils.errors import InputError


def read_prompts(path: Path, names: Mapping[str, str] | None = None) -> Raters:
    """Read prompts from a CSV file, a file `slice_N_prompt.yml`, or a folder of these.

    path: a folder is searched with all folders in it.
    names: {path of an image: name of its case}, for cases that a dataset file names. Other images
        of YAML files are named as on the command line, see `case_name`.

    Raises `InputError` with file and line for anything that is not such prompts.
    """
    if path.suffix.lower() == ".csv":
        return read_table(path)
    paths = sorted(path.rglob("slice_*_prompt.yml")) if path.is_dir() else [path]
    slices: dict[str, dict[int, SlicePrompts]] = {}
    for each in paths:
        case, index, prompts = read_yaml(each, names or {})
        if other := slices.setdefault(case, {}).get(index):
            first = other.drawn[0].where.rpartition(", line ")[0]
            raise InputError(f"{each}: slice {index} of {case} is also in {first}; remove one")
        slices[case][index] = prompts
    if not slices:
        raise InputError(f"{path}: has no slice_N_prompt.yml; write them with --debug")
    return {"": slices}


def find_misplaced(
    slices: Mapping[int, SlicePrompts], size_rc: tuple[int, int], count: int
) -> list[str]:
    """Return a line for each slice that the volume does not have, and each prompt outside a slice.

    slices: the prompts of one case. size_rc: (rows, columns) of a slice. count: number of slices.
    """
    found = []
    rows, columns = size_rc
    for index, (_, drawn, _) in slices.items():
        if not 0 <= index < count:
            found.append(f"{drawn[0].where}: there is no slice {index}; give 0 to {count - 1}")
            continue
        for where, kind, corners_rc in drawn:
            # The last corner of a box is one past its last pixel.
            last = np.subtract(corners_rc[-2:], kind == "box")
            if min(corners_rc) < 0 or (last >= size_rc).any():
                shown = ", ".join(map(str, corners_rc))
                what = "the box" if kind == "box" else f"the {kind} point"
                found.append(
                    f"{where}: {what} ({shown}) is not inside the {rows} rows and {columns} columns"
                    " of the slice; rows and columns count from 0"
                )
    return found
