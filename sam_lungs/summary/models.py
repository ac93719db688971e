"""The models of compared runs, and whether the runs had the same slices and reference masks."""

from itertools import combinations

import pandas as pd

from sam_lungs.study.run_record import RunRecord
from sam_lungs.summary.exposure import exposure_of_run
from sam_lungs.summary.join import JoinedResults

MODELS_NAME = "models.csv"


def models_table(runs: dict[str, JoinedResults]) -> pd.DataFrame:
    """Return a row for each model and way of using it, with the names of its runs.

    Columns: those of `models.csv` in docs/results.md; empty when no run has a run.json.
    """
    uses = {}
    for name, run in runs.items():
        for image, record in run.records.items():
            uses.setdefault(tuple(_facts(record).items()), []).append((name, image, record))
    rows = []
    for facts, used in uses.items():
        records = {image: record for _, image, record in used}
        exposure = exposure_of_run(records, records)
        rows.append(
            {"runs": ", ".join(dict.fromkeys(name for name, _, _ in used)), **dict(facts)}
            | {"exposure": exposure.exposure, "exposure_source": exposure.source}
        )
    return pd.DataFrame(rows)


def different_inputs(runs: dict[str, JoinedResults]) -> list[str]:
    """Return a line for each pair of runs that had other images, windows, masks or labels."""
    lines = []
    for first, second in combinations(runs, 2):
        inputs = [
            {image.removeprefix("image_"): _inputs(record) for image, record in run.records.items()}
            for run in (runs[first], runs[second])
        ]
        both = sorted(inputs[0].keys() & inputs[1].keys())
        if other := [image for image in both if _differ(inputs[0][image], inputs[1][image])]:
            lines.append(
                f"{first} and {second} had other images, windows, masks or labels in"
                f" {len(other)} of {len(both)} volumes, such as {other[0]}; their difference is"
                " not that of the models or prompts alone"
            )
    return lines


def _facts(record: RunRecord) -> dict:
    segmenter = record.segmenter
    size = segmenter.get("size_bytes")
    return {
        "model": segmenter.get("model"),
        "family": segmenter.get("family"),
        "weights": segmenter.get("provenance"),
        "licence": segmenter.get("licence"),
        "megabytes": size and round(size / 1e6),
        "preprocessing": segmenter.get("preprocessing"),
        "prompts": ", ".join(segmenter.get("prompt_kinds", [])),
        "objects": record.options.get("objects", "together"),
        "mask": segmenter.get("mask_choice"),
        "note": segmenter.get("note", ""),
    }


def _inputs(record: RunRecord) -> dict:
    """Return what decides the slices and reference masks; masks may be scored without an image."""
    masks = [identity.get("sha256") for identity in record.masks]
    inputs = {"masks": masks, "objects": record.reading.get("objects")}
    inputs["object"] = record.options.get("object")  # the only one that was scored
    if record.image:
        inputs |= {"image": record.image.get("sha256"), "window": record.window_hu}
    return inputs


def _differ(first: dict, second: dict) -> bool:
    return any(first[name] != second[name] for name in first.keys() & second.keys())
