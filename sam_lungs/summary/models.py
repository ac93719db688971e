"""The models of compared runs."""

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
