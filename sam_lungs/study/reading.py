"""Files of a case -> the case, with the window of the model's authors where the options ask so."""

from dataclasses import replace

import numpy as np

from sam_lungs.data.case import Case, Finding, read_case
from sam_lungs.data.case_files import CaseFiles
from sam_lungs.data.labels import values_under
from sam_lungs.data.windowing import LUNG_WINDOW, MOST_OUTSIDE, Window
from sam_lungs.segmenters.registry import native_window
from sam_lungs.study.options import Options


def read_case_for(files: CaseFiles, options: Options) -> Case:
    """Read a case as `data.case.read_case` does, for the one model of the options.

    With `--preprocessing native` the window for lungs is replaced by that of the model's authors.
    Values outside of it are a warning. A case that does not get the window for lungs, such as a
    picture, gets a fault.
    """
    case = read_case(files)
    if options.preprocessing == "common" or case.faults:
        return case
    path = files.image_path
    if case.window != LUNG_WINDOW:
        message = (
            f"{path}: is not windowed as a CT of lungs in Hounsfield units, so there is no window"
            " to replace; leave out --preprocessing native"
        )
        return replace(case, findings=[*case.findings, Finding("native", message, is_fault=True)])
    window = Window(*native_window(options.model))
    if case.masks is None:
        return replace(case, window=window)
    low, high = window.range_hu
    under_masks = values_under(case.masks.array, case.image.array)
    outside = np.mean((under_masks < low) | (under_masks > high))
    findings = case.findings
    if outside > MOST_OUTSIDE:
        message = (
            f"{path}: {outside:.0%} of the voxels under the masks lie outside the window of the"
            f" model's authors {low:g}..{high:g}, which makes them black or white"
        )
        findings = [*findings, Finding("saturated", message)]
    return replace(case, window=window, findings=findings)
