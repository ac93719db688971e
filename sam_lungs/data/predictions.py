"""Masks that were predicted elsewhere, on the grid of their case."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam_lungs.data import fit, labels
from sam_lungs.data.case import Case, Findings, labels_on_grid
from sam_lungs.data.plausibility import Finding
from sam_lungs.data.readers import read_volume
from sam_lungs.data.volume import Volume
from sam_lungs.utils.errors import InputError

# How a user says which label is which object.
NAME_OBJECTS = (
    "give each a label, as in --prediction_labels left=10 right=11; the names are those of the"
    " dataset file, or of --labels left=1 right=2"
)


@dataclass(frozen=True, eq=False)
class Predictions:
    """Predicted masks of a case.

    labels: (rows, columns, slices), on the grid of the case, where an object has the label that it
        has in the case's masks; None after a fault. identities: `Volume.identity` of each file.
    """

    labels: np.ndarray | None
    identities: list[dict]
    findings: list[Finding]


def read_predictions(
    paths: Sequence[Path],
    case: Case,
    objects: Mapping[str, Sequence[int]] | None = None,
    align: str = "affine",
    apart: bool = False,
) -> Predictions:
    """Read the predicted masks of a case, and check them as reference masks are checked.

    paths: a label volume, or a file per object; without any the prediction is empty.
    case: without faults. objects: name of an object -> its labels in the files; `None`: see
        docs/scoring.md.
    align: `affine` places the masks by their affine, where it is known; `voxels` does not.
    apart: whether each object is scored alone, so that its label must be known.

    Every fault is collected in the findings, instead of raising the first.
    """
    if not paths:
        return Predictions(np.zeros(case.masks.array.shape, np.uint8), [], [])
    findings = Findings(case.files.reading.allow)
    volumes = []
    for path in paths:
        with findings.collecting("unreadable"):
            volumes.append(read_volume(path, spacing_mm=case.files.reading.spacing_mm))
    identities = [volume.identity for volume in volumes]
    if len(volumes) < len(paths) or findings.add(*_check_not_references(volumes, case)):
        return Predictions(None, identities, findings.found)
    image = case.image if case.files.image_path else None
    has_affines = all(
        each.geometry and each.geometry.is_oriented for each in (case.image, *volumes)
    )
    if not has_affines and align == "affine":
        align = "auto"
    findings.add(
        *(
            Finding("empty_prediction", f"{each.path}: the predicted masks are empty")
            for each in volumes
            if not each.array.any()
        )
    )
    if has_affines != any(
        each.geometry and each.geometry.is_oriented for each in (case.image, *volumes)
    ):
        message = f"{paths[0]}: compared voxel by voxel, because not all affines are known"
        findings.add(Finding("voxels", message))
    found = labels_on_grid(volumes, image, case.image, align, findings)
    if found is None:
        return Predictions(None, identities, findings.found)
    chosen = None
    with findings.collecting("labels", f"{paths[0]}: "):
        chosen = _choose(found.array, case, objects, apart, len(volumes))
    if image and chosen is not None and chosen.any():
        findings.add(fit.check_fit(image, Volume(chosen, None, paths[0]), case.window))
    return Predictions(chosen, identities, findings.found)


def _check_not_references(volumes: Sequence[Volume], case: Case) -> list[Finding]:
    known = {each["sha256"]: each["file"] for each in case.masks_identities if each["sha256"]}
    return [
        Finding(
            "not_predictions",
            f"{each.path}: is the same file as the reference masks {known[each.sha256]}; give"
            " predicted masks with -p",
            is_fault=True,
        )
        for each in volumes
        if each.sha256 in known
    ]


def _choose(
    found: np.ndarray,
    case: Case,
    objects: Mapping[str, Sequence[int]] | None,
    apart: bool,
    files: int,
) -> np.ndarray:
    """Return the labels of predictions as the labels of the case's masks.

    files: number of files that hold them; of several, file i has the label i.

    Raises `InputError` when labels of the files do not say which object they are.
    """
    of_case = case.files.reading.objects
    present = list(labels.count_labels(found))
    references = list(case.slices_of_labels)
    shown = ",".join(map(str, present[:10])) + (",..." if len(present) > 10 else "")
    values = case.objects
    if not present:
        return found
    if objects is not None:
        if not {label for own in objects.values() for label in own} & set(present):
            raise InputError(f"has the labels {shown}; give --prediction_labels of these")
        if not apart:
            return labels.select_objects(found, objects)
        if set(objects) != set(values):
            raise InputError(
                f"--prediction_labels names {', '.join(objects)}, but the objects of the reference"
                f" masks are {', '.join(values)}; {NAME_OBJECTS}"
            )
        return labels.select_objects(found, objects, values)
    if apart and len(values) == 1 and len(present) == 1:
        return np.where(found != 0, *values.values(), 0)
    # Which object a label is, is known only if both have labels from one file, or one per file.
    is_known = files > 1 or (len(present) > 1 and len(case.masks_identities) == 1)
    is_of_case = of_case is not None and {
        label for own in of_case.values() for label in own
    } >= set(present)
    if is_of_case and (is_known or not apart or len(values) == 1):
        return labels.select_objects(found, of_case)
    if apart and len(values) > 1 and not (is_known and set(present) <= set(references)):
        raise InputError(
            f"has the labels {shown}, but the reference masks have {len(values)} objects; leave out"
            f" --objects apart, or {NAME_OBJECTS}"
        )
    if len(present) > 1 and not set(present) <= set(references):
        raise InputError(
            f"has the labels {shown}, of which some are not in the reference masks; choose with"
            " --prediction_labels"
        )
    return found
