"""Whether runs measured the same reference masks in the same images, so that they can be compared.

Models, prompts, precision and windows may differ: that is what is compared.
"""

from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

from sam_lungs.data.arrays import source_of
from sam_lungs.data.names import NUMPY_SUFFIXES, SUFFIXES, has_suffix
from sam_lungs.study.measurement_options import NEED_SPACING
from sam_lungs.study.run_record import RunRecord
from sam_lungs.summary.join import JoinedResults
from sam_lungs.summary.mixing import as_text, differing
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.text import count


class Difference(NamedTuple):
    """What differs in a volume of two runs: `name`, and its value in either run."""

    name: str
    first: str
    second: str


def check_comparable(runs: Mapping[str, JoinedResults], allow_mixed: bool = False) -> None:
    """Raise `InputError` when two runs have other images or reference masks, unless allowed."""
    if not allow_mixed and (lines := different_inputs(runs)):
        raise InputError(
            f"{lines[0]}; process one again with the inputs of the other, compare other runs, or"
            " give --allow_mixed to compare_runs.py or make_report.py"
        )


def different_inputs(runs: Mapping[str, JoinedResults]) -> list[str]:
    """Return a line for each pair of runs that had other images or reference masks."""
    lines = []
    for first, second in combinations(runs, 2):
        if found := differences(runs[first], runs[second]):
            image, (name, *values) = next(iter(found.items()))
            lines.append(
                f"{first} and {second} had other images or reference masks in"
                f" {count(len(found), 'volume')}, such as {image} ({name}: {values[0]} and"
                f" {values[1]}); their difference is not that of the models or prompts alone"
            )
    return lines


def differences(first: JoinedResults, second: JoinedResults) -> dict[str, Difference]:
    """Return what differs in the images or reference masks of two runs, by volume.

    Where the records cannot tell, as of files in two formats, masks are taken as the same if they
    have equal areas in all slices that both runs have. Volumes without a record are left out.
    """
    of_first, of_second = (
        {image.removeprefix("image_"): record for image, record in run.records.items()}
        for run in (first, second)
    )
    found, unknown = {}, {}
    for image in sorted(of_first.keys() & of_second.keys()):
        for difference, is_same in _compare(of_first[image], of_second[image]):
            if is_same is False:
                found.setdefault(image, difference)
            elif is_same is None:
                unknown.setdefault(image, difference)
    images = [image for image in unknown if image not in found]
    return found | {image: unknown[image] for image in _other_areas(first, second, images)}


def mixed_settings(first: JoinedResults, second: JoinedResults) -> str:
    """Return the names of what differs in the inputs of two runs, or between volumes of one."""
    names = [each.name for each in differences(first, second).values()]
    for run in (first, second):
        names += differing(run.volumes["image"], run.records)
    return ", ".join(dict.fromkeys(names))


def _compare(first: RunRecord, second: RunRecord) -> list[tuple[Difference, bool | None]]:
    """Return what decides the references of two records, and whether it is the same in both.

    None: the areas of the masks decide.
    """
    both = first, second
    files = [
        (name, [_names(each) for each in identities], _same_files(*identities))
        for name, identities in (
            ("reference masks", [each.masks for each in both]),
            ("image", [[each.image] if each.image else [] for each in both]),
        )
        if all(identities)
    ]
    aligned = [each.reading.get("align") for each in both]
    # `auto` is one of the others.
    same_align = aligned[0] == aligned[1] or (None if "auto" in aligned else False)
    labels = [_labels(each) for each in both]
    shown = [as_text(sorted(each)) if each else "all" for each in labels]
    rows = [*files, ("--labels", shown, _same_labels(*both)), ("--align", aligned, same_align)]
    if all(set(each.options.get("metrics", ())) & set(NEED_SPACING) for each in both):
        spacings = [each.reading.get("spacing_mm") for each in both]
        rows.append(("--spacing_mm", map(as_text, spacings), spacings[0] == spacings[1]))
    return [(Difference(name, *map(str, values)), is_same) for name, values, is_same in rows]


def _same_files(first: list[dict], second: list[dict]) -> bool | None:
    """Return whether files have the same content; None if that is not known, or not in order."""
    hashes = [[each.get("sha256") for each in files] for files in (first, second)]
    if hashes[0] == hashes[1]:
        return True
    if len(first) != len(second) or sorted(map(str, hashes[0])) == sorted(map(str, hashes[1])):
        return None
    for one, other in zip(first, second, strict=True):
        if one.get("sha256") == other.get("sha256"):
            continue
        (suffix, sha256), (other_suffix, other_sha256) = _source(one), _source(other)
        # The same masks have another hash in another format.
        if suffix == other_suffix and sha256 != other_sha256:
            return False
    return None


def _source(identity: dict) -> tuple[str, str | None]:
    """Return the format and SHA-256 of a file, of an array those of the file it was made from."""
    path, sha256 = Path(identity["file"]), identity.get("sha256")
    if has_suffix(path, NUMPY_SUFFIXES):
        name, sha256 = source_of(path, identity.get("conversion")) or (path, sha256)
        path = Path(name)
    return next((end for end in SUFFIXES if has_suffix(path, (end,))), ""), sha256


def _names(identities: list[dict]) -> str:
    names = [f"{Path(each['file']).name} {str(each.get('sha256'))[:8]}" for each in identities]
    return ", ".join(names)


def _labels(record: RunRecord) -> set[str]:
    """Return the labels of the reference masks that were measured; empty for all."""
    objects, name = record.reading.get("objects"), record.options.get("object")
    if name and not objects:
        return {name}  # named after its label
    chosen = objects or {}
    labels = [chosen[name]] if name in chosen else chosen.values()
    return {str(label) for each in labels for label in each}


def _same_labels(first: RunRecord, second: RunRecord) -> bool | None:
    """Return whether the same labels were measured; None if those of one hold those of the other.

    Then equal areas say that the others have no pixels.
    """
    scores = [
        (each.options["object"], each.masks, each.predictions, each.segmenter)
        for each in (first, second)
        if "object" in each.options
    ]
    # Different objects of the same masks are compared on purpose.
    if len(scores) == 2 and scores[0][1:] == scores[1][1:]:
        return True
    labels, others = _labels(first), _labels(second)
    if labels == others:
        return True
    is_part = not labels or not others or labels < others or others < labels
    return None if is_part else False


def _other_areas(first: JoinedResults, second: JoinedResults, images: list[str]) -> list[str]:
    """Return the volumes whose reference masks have another area in a slice of both runs."""
    if not images:
        return []
    areas = []
    for run in (first, second):
        slices = run.slices[["image", "slice", "lung_pixels"]].dropna()
        slices = slices.assign(image=slices["image"].str.removeprefix("image_"))
        areas.append(slices[slices["image"].isin(images)])
    pairs = areas[0].merge(areas[1], on=["image", "slice"], suffixes=("", "_other"))
    differ = pairs["lung_pixels"] != pairs["lung_pixels_other"]
    return pairs["image"][differ].unique().tolist()
