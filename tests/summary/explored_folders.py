"""Explorations of prompts, written without a model."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
from results_folders import RECORD

from sam_lungs.study.explore.layout import MAPS_FOLDER, SUMMARY_NAME, VALUES_NAME
from sam_lungs.study.results import write_csv
from sam_lungs.study.run_record import RunRecord

VALUES = pd.DataFrame({"slice": [3], "object": ["all"], "jaccard": [0.5], "dice": [2 / 3]})


def explore(
    folder: Path,
    quantities: dict[str, float] | pd.DataFrame,
    patient: str | None = None,
    values: pd.DataFrame = VALUES,
    record: RunRecord = RECORD,
) -> None:
    """Write a finished exploration of a volume; heat maps are in the folder already.

    quantities: those of the object `all`, or the table.
    """
    if isinstance(quantities, dict):
        quantities = pd.DataFrame(
            [(name, "all", value) for name, value in quantities.items()],
            columns=["quantity", "object", "value"],
        )
    write_csv(quantities, folder / SUMMARY_NAME)
    write_csv(values, folder / VALUES_NAME)
    maps = [f"{MAPS_FOLDER}/{path.name}" for path in (folder / MAPS_FOLDER).glob("*")]
    replace(record, patient=patient).write(folder, [VALUES_NAME, SUMMARY_NAME, *maps])
