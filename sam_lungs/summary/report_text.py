"""What the report says of a study in sentences: only what its run records say."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path

from sam_lungs.prompts.protocols import PROTOCOLS
from sam_lungs.study.run_record import RunRecord
from sam_lungs.summary.exposure import ANY_DATASET, exposure_of_run, exposure_table
from sam_lungs.summary.join import JoinedResults

LISTED = 10
TRAINED = {
    "trained on": "its training data have such images",
    "unknown": "it is not known whether it was trained on such images",
    "held out": "its training data do not have such images, as far as they are described",
}


def heading(results_folder: Path, records: Collection[RunRecord]) -> dict:
    """Return the model, the dataset and the date of a study, for the title of its report.

    Keys: `names` and `families` of the models; `dataset`; `date`, None where it is not recorded.
    """
    days = sorted({record.started[:10] for record in records if record.started})
    return {
        "names": sorted({str(record.segmenter.get("model")) for record in records}),
        "families": sorted({str(record.segmenter.get("family")) for record in records}),
        "dataset": dataset_name(results_folder.absolute(), records),
        "date": " to ".join(dict.fromkeys((days[0], days[-1]))) if days else None,
    }


def dataset_name(results_folder: Path, records: Collection[RunRecord]) -> str:
    """Return the name of the dataset file; without one, that of the study's folder.

    The name `results` says nothing, so the folder that holds it is taken instead.
    """
    files = {record.other_options.get("dataset") for record in records}
    if files and None not in files:
        return ", ".join(sorted(Path(file).name for file in files))
    given = {record.other_options.get("output_folder") for record in records} - {None}
    if len(given) == 1:
        path = Path(*given)
        return (path.parent.name if path.name == "results" else path.name) or path.name
    before, results, _ = f"{results_folder.as_posix()}/".rpartition("/results/")
    return Path(before).name if results else results_folder.name


def prompting(records: dict[str, RunRecord]) -> dict:
    """Return where the prompts come from; without records, nothing is said of them.

    Keys: `prompts_files`, their names; `is_of_reference`, whether some are made from the reference
    masks; `is_paper`, whether all are the paper's, or not recorded.
    """
    paper = asdict(PROTOCOLS["paper"])
    protocols = [each.protocol for each in records.values()]
    files = {each["prompts_file"] for each in protocols if "prompts_file" in each}
    return {
        "prompts_files": sorted(files),
        "is_of_reference": any(each and "prompts_file" not in each for each in protocols),
        "is_paper": all(each.items() <= paper.items() for each in protocols),
    }


def training(runs: Iterable[dict[str, RunRecord]]) -> list[str]:
    """Return sentences for each model: whether it was trained on the images of the runs."""
    by_model = {}
    for records in runs:
        for image, record in records.items():
            by_model.setdefault(record.segmenter.get("model"), {})[image] = record
    return [_training(model, records) for model, records in by_model.items() if model]


def _training(model: str, records: dict[str, RunRecord]) -> str:
    if {record.segmenter.get("family") for record in records.values()} == {"baseline"}:
        return f"{model}: no training."
    found = exposure_of_run(records, records)
    sentence = f"{model}: {TRAINED[found.exposure]}"
    sentence += f" ({found.dataset})." if found.dataset else "."
    if all(record.segmenter.get("provenance") != "given" for record in records.values()):
        datasets = [*(found.dataset or "").split(", "), ANY_DATASET]
        table = exposure_table()
        rows = table[(table["model"] == model.lower()) & table["dataset"].isin(datasets)]
        sentence += "".join(f" {note}" for note in rows["note"].unique())
    return f"{sentence} Source: {found.source}."


def patients_of(study: JoinedResults) -> str:
    """Return how many patients there are, and how that is known."""
    volumes = len(study.volumes)
    unknown = study.volumes["patient"].isna().sum()
    if unknown == volumes:
        return f"Volumes: {volumes}; the patients are not known, so each volume counts as one."
    text = f"Patients: {len(study.cases)}, volumes: {volumes}; the patients come from"
    text += f" {study.patients_from}"
    if unknown:
        text += f"; volumes without a known patient, each counted as one: {unknown}"
    return f"{text}."


def listed(lines: Sequence[str]) -> list[str]:
    """Return the first lines of a long list, and how many more there are."""
    more = len(lines) - LISTED
    return [*lines[:LISTED], *([f"and {more} more"] if more > 0 else [])]
