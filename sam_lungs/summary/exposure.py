"""Whether a model was trained on the dataset that it is scored on; see docs/exposure.md."""

import re
from collections.abc import Collection
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from sam_lungs.data.montgomery import CASES
from sam_lungs.data.zenodo import PAPER_VOLUMES
from sam_lungs.study.run_record import RunRecord

EXPOSURE_TABLE = Path(__file__).with_name("exposure.csv")
# From the worst to the best.
EXPOSURES = ("trained on", "unknown", "held out")
# A row with this dataset holds for all images.
ANY_DATASET = "any"
# Names of volumes, without image_; more may follow after an underscore.
DATASETS = {
    "COVID-19-CT-Seg": "|".join(PAPER_VOLUMES),
    "Montgomery": "|".join(CASES),
    "synthetic": r"phantom_\d{3,}",
}


class Exposure(NamedTuple):
    """exposure: one of `EXPOSURES`. dataset: None if not known. source: where that is said."""

    exposure: str
    dataset: str | None
    source: str


@cache
def exposure_table() -> pd.DataFrame:
    """Return the columns `dataset,model,exposure,source,note`, a row per dataset and model."""
    return pd.read_csv(EXPOSURE_TABLE)


def exposure_of(model: str, images: Collection[str]) -> Exposure:
    """Return whether a model was trained on images, the worst over their datasets.

    model: its name, as in the table; upper and lower case are the same.
    images: names of one or more volumes, with or without `image_`.
    """
    return _worst([_entry(model, dataset_of(image)) for image in images])


def exposure_of_run(records: dict[str, RunRecord], images: Collection[str]) -> Exposure:
    """Return whether the model of a run was trained on its images, the worst over all of them.

    Weights given as a file are unknown, because fine-tuned ones keep the name of a model.

    records: of the run's volumes, by image; a volume without one is unknown. images: names of one
        or more volumes. Names match with and without `image_`.
    """
    records = {_bare(image): record for image, record in records.items()}
    return _worst([_recorded(records.get(_bare(image)), dataset_of(image)) for image in images])


def dataset_of(image: str) -> str | None:
    """Return the dataset of a volume, by its name with or without `image_`; None if not known."""
    for dataset, names in DATASETS.items():
        if re.fullmatch(rf"(?:{names})(?:_.*)?", _bare(image)):
            return dataset
    return None


def _bare(image: str) -> str:
    return image.removeprefix("image_")


def _recorded(record: RunRecord | None, dataset: str | None) -> Exposure:
    segmenter = record.segmenter if record else {}
    if not segmenter.get("model"):
        return Exposure("unknown", dataset, "no run.json names the model")
    if segmenter.get("provenance") == "given":
        return Exposure("unknown", dataset, "weights given as a file")
    return _entry(segmenter["model"], dataset)


@cache
def _entry(model: str, dataset: str | None) -> Exposure:
    table = exposure_table()
    found = table[
        table["dataset"].isin([dataset, ANY_DATASET]) & (table["model"] == model.lower())
    ].to_dict("records")
    if found:
        return Exposure(found[0]["exposure"], dataset, found[0]["source"])
    if dataset is None:
        return Exposure("unknown", None, "images of no known dataset")
    return Exposure("unknown", dataset, f"{model} is not in exposure.csv")


def _worst(entries: list[Exposure]) -> Exposure:
    different = list(dict.fromkeys(entries))
    datasets = dict.fromkeys(entry.dataset or "other data" for entry in different)
    return Exposure(
        min((entry.exposure for entry in different), key=EXPOSURES.index),
        ", ".join(datasets) if any(entry.dataset for entry in different) else None,
        "; ".join(dict.fromkeys(entry.source for entry in different)),
    )
