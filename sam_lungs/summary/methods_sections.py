"""The runs of a study -> the sections of its methods text."""

from collections import defaultdict
from collections.abc import Callable
from pathlib import PurePath

import pandas as pd

import sam_lungs
from sam_lungs.study.run_record import RunRecord
from sam_lungs.summary import methods_facts, methods_prompts
from sam_lungs.summary.join import JoinedResults
from sam_lungs.summary.methods_metrics import describe_metrics, describe_statistics, metrics_of
from sam_lungs.summary.methods_wording import (
    References,
    Volume,
    code,
    count,
    listed,
    places,
    say,
    sentence,
)
from sam_lungs.summary.references import different_inputs

Records = dict[Volume, RunRecord | None]


def describe(
    runs: dict[str, JoinedResults], comparison: pd.DataFrame | None, references: References
) -> dict[str, str]:
    """Return the text of each section by its title; what is common to all volumes is said once.

    comparison: from `compare.compare_runs`; None for one run.
    """
    records = {
        (name, image): run.records.get(image)
        for name, run in runs.items()
        for image in run.volumes["image"]
    }

    def tell(fact: Callable[..., str], *arguments: object) -> str:
        return say(
            {volume: fact(each, *arguments) if each else "" for volume, each in records.items()}
        )

    sections = {
        "Data": [
            _of_runs(runs, _counts),
            _of_runs(runs, _patients),
            tell(methods_facts.dataset),
            tell(methods_facts.reading),
            *(f"{line}." for line in different_inputs(runs)),
            _unrecorded(records),
        ],
        "Prompts": [
            tell(methods_prompts.prompts, references),
            tell(methods_prompts.points),
            tell(methods_prompts.negative_points),
            tell(methods_prompts.box),
            tell(methods_prompts.every),
            tell(methods_prompts.empty_slices),
        ],
        "Images": [tell(methods_facts.window), tell(methods_facts.preprocessing)],
        "Model": [tell(methods_facts.model, references), _of_runs(runs, _exposure)],
        "Metrics": [describe_metrics(metrics_of(runs.values()), _tolerances(records), references)],
        "Statistics": [describe_statistics(runs, comparison, references)],
        "Hardware": [tell(methods_facts.hardware), _of_runs(runs, _time)],
        "Software": [
            tell(methods_facts.software, references),
            f"Tables and statistics were computed by sam-lungs {sam_lungs.__version__}.",
        ],
        "Input checks": [_findings(records)],
    }
    texts = {title: " ".join(filter(None, parts)) for title, parts in sections.items()}
    return {title: text for title, text in texts.items() if text}


def _of_runs(runs: dict[str, JoinedResults], fact: Callable[[JoinedResults], str]) -> str:
    """Return the sentences of a fact of each run."""
    return say(
        {(name, image): fact(run) for name, run in runs.items() for image in run.volumes["image"]}
    )


def _counts(run: JoinedResults) -> str:
    volumes = run.volumes
    text = f"there are {count(len(volumes), 'volume')}"
    if volumes["patient"].notna().any():
        text += f" of {count(len(run.cases), 'patient')}"
    text += f" with {count(volumes['slices'].sum(), 'slice')} in all, of which"
    text += f" {volumes['lung_slices'].sum():,} have lung in the reference mask"
    subsets = volumes["subset"].value_counts().sort_index()
    if len(subsets):
        named = (f"{code(name)} ({count(number, 'volume')})" for name, number in subsets.items())
        text += f"; the subsets are {listed(named)}"
    if run.left_out:
        text += "; left out, because they have no usable results or patient:"
        text += f" {count(len(run.left_out), 'folder')}"
    return text


def _patients(run: JoinedResults) -> str:
    unknown = int(run.volumes["patient"].isna().sum())
    source = run.patients_from
    if unknown == len(run.volumes):
        return "which volumes are of one patient is not recorded, so each counts as one patient"
    if source.startswith("--patients "):
        source = f"found in the names of the volumes by the pattern {code(source.split(' ', 1)[1])}"
    else:
        source = f"those of {code(PurePath(source).name)}"
    text = f"the patients are {source}"
    if unknown:
        text += f"; volumes without a known patient, each counted as one patient: {unknown}"
    return text


def _unrecorded(records: Records) -> str:
    without = [volume for volume, record in records.items() if record is None]
    if not without:
        return ""
    return (
        f"For {places(without, records)} there is no run.json, so these are not recorded: dataset,"
        " prompts, window, preprocessing, model, weights, precision, hardware, time and software."
    )


def _exposure(run: JoinedResults) -> str:
    if not run.records:
        return ""
    exposures = run.intervals["exposure"].dropna().unique()
    return f"the model's exposure to the dataset is: {listed(exposures)}" if len(exposures) else ""


def _tolerances(records: Records) -> list[float]:
    """Return the tolerances of runs in mm; a list in later versions, a number in earlier ones."""
    given = (each.options.get("tolerance_mm", []) for each in records.values() if each)
    lists = (each if isinstance(each, list) else [each] for each in given)
    return sorted({tolerance for each in lists for tolerance in each})


def _time(run: JoinedResults) -> str:
    records = [each for each in run.records.values() if not methods_facts.is_elsewhere(each)]
    if not records:
        return ""
    times = pd.Series([each.seconds_per_slice for each in records], dtype="float64").dropna()
    if times.empty:
        return methods_facts.missing("the time per slice")
    text = f"segmenting a slice took {times.median():.3g} s"
    if len(times) > 1:
        text += f" (median over volumes, from {times.min():.3g} to {times.max():.3g} s)"
    return text


def _findings(records: Records) -> str:
    found = defaultdict(list)
    for volume, record in records.items():
        for each in record.findings if record else ():
            text = (
                f"the fault {code(each['name'])} was accepted by the user"
                if each["is_allowed"]
                else f"the check of the input files gave the warning {code(each['name'])}"
            )
            if volume not in found[text]:
                found[text].append(volume)
    if not found:
        none = "the checks of the input files found no fault and gave no warning"
        return say({volume: none if record else "" for volume, record in records.items()})
    return " ".join(f"{sentence(text)[:-1]} for {places(found[text], records)}." for text in found)
