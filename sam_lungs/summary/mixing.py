"""Which settings decide the numbers of a volume, and whether volumes may be averaged.

The settings are those of the fingerprint in run.json, without what belongs to a single volume. The
report shows the same list, see `settings`.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path

from sam_lungs.study.run_record import RunRecord
from sam_lungs.utils.cli import option
from sam_lungs.utils.errors import InputError

# Left out: the files, prompts of a file, spacing and series are those of a volume, and a study may
# have volumes of many. debug, draw and save_masks decide which files are written, but no number.
# `preprocessing` and `mask` hold the effect of the options that have almost the same names, and
# `weights` has the name of a model without weights.
LEFT_OUT = re.compile(
    r".* (sha256|conversion)|weights"
    r"|--(spacing_mm|series|debug|draw|save_masks|preprocessing|mask_choice)"
)
REMEDY = "give --allow_mixed to join_results.py, make_report.py or compare_runs.py"


@dataclass(frozen=True, kw_only=True)
class MixingOptions:
    """The option of a script that averages volumes or compares runs."""

    allow_mixed: bool = option(
        "average volumes that were made in different ways, and compare runs with other images or"
        " reference masks; tables and report name what differs",
        False,
        "comparison",
    )


def deciding_settings(record: RunRecord) -> dict[str, str]:
    """Return the settings that decide a volume's numbers, by name, as text.

    Only what the record holds is there: what an older version did not record is not known.
    """
    segmenter = record.segmenter
    settings = {
        "weights": sorted(segmenter.get("weights", {}).values()) or segmenter.get("model"),
        "family": segmenter.get("family"),
        "mask": segmenter.get("mask_choice"),
        "rule of the mask": segmenter.get("mask_rule"),
        "predictions": "scored masks" if _is_scored(record) else "of this run",
        "prompts": "of a file" if "prompts_file" in record.protocol else "by a rule",
    }
    fingerprint = {
        name: value for name, value in record.fingerprint.items() if not LEFT_OUT.fullmatch(name)
    }
    settings |= fingerprint
    known = {name for name, value in settings.items() if value is not None} | {"--labels"}
    if not record.protocol:
        known -= {name for name in settings if name.startswith("prompts")}
    if _is_scored(record):
        known.discard("--window")  # has no effect on masks
        if not record.predictions:
            # A case without predictions counts as empty, whatever made those of the others.
            known &= {name for name in settings if name.startswith("--")} | {"numbers version"}
            known.discard("--objects")
    return {name: as_text(value) for name, value in settings.items() if name in known}


def differing(
    images: Collection[str], records: Mapping[str, RunRecord]
) -> dict[str, dict[str, str]]:
    """Return the settings that are not the same in all volumes: name -> {volume: value} of two.

    records: of the volumes that have one. Windows are the same if their rule is, such as `auto`, or
    if the rules gave the same window.
    """
    first: dict[str, tuple[str, str]] = {}
    found: dict[str, dict[str, str]] = {}
    for image in images:
        settings = {"run.json": "there" if image in records else "missing"}
        if image in records:
            settings |= deciding_settings(records[image])
        for name, value in settings.items():
            known = first.setdefault(name, (image, value))
            if value != known[1]:
                found.setdefault(name, dict([known, (image, value)]))
    windows = [records[image].window_hu for image in images if image in records]
    # None stands for no window, and for one that an older version did not record.
    if "--window" in found and windows[0] and all(each == windows[0] for each in windows):
        del found["--window"]
    return found


def check_alike(
    folder: Path,
    images: Collection[str],
    records: Mapping[str, RunRecord],
    allow_mixed: bool = False,
    remedy: str = REMEDY,
) -> dict[str, str]:
    """Return `{}`, or for mixed volumes `{"mixed": names of the settings}`: a column for tables.

    folder: of the volumes. images, records: see `differing`. remedy: the last one in the message.

    Raises `InputError` when a setting differs between volumes and that is not allowed.
    """
    found = differing(images, records)
    if not found:
        return {}
    if allow_mixed:
        return {"mixed": ", ".join(found)}
    name, values = next(iter(found.items()))
    if name == "weights":
        # Their hashes are long.
        values = {image: _model(records[image]) for image in values}
    (image, value), (other, other_value) = values.items()
    more = f" (differs too: {', '.join(list(found)[1:])})" if len(found) > 1 else ""
    raise InputError(
        f"{folder}: {image} has {name} {value}, but {other} has {other_value}{more}, so they are"
        " not averaged; process one again with --overwrite, move them to separate"
        f" folders, or {remedy}"
    )


def as_text(value: object) -> str:
    """Return the value of a setting for readers."""
    if isinstance(value, Mapping):  # objects and their labels
        labels = {name: "+".join(map(str, each)) for name, each in value.items()}
        return ", ".join(f"{name} {labels[name]}" for name in labels)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(as_text, value)) or "not given"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "not given" if value is None else str(value)


def _model(record: RunRecord) -> str:
    """Return the name of the model, and the beginning of the hashes of its weights."""
    hashes = [sha256[:8] for sha256 in record.segmenter.get("weights", {}).values()]
    return f"{record.segmenter.get('model')} ({', '.join(hashes) or 'none'})"


def _is_scored(record: RunRecord) -> bool:
    return "align_predictions" in record.options
