"""How the results of volumes were made, for the report."""

import pandas as pd

from sam_lungs.study.run_record import RunRecord, code_sha256
from sam_lungs.summary.mixing import as_text, deciding_settings

NOT_RECORDED = "not recorded"
# Of the settings whose names in run.json a reader would not know.
TITLES = {
    "--precision": "precision of the encoder",
    "--align": "alignment of the masks",
    "--labels": "labels of the objects",
    "--tolerance_mm": "tolerance in mm",
    "numbers version": "version of the numbers",
}
# Volumes in which these differ are in one group.
JOINED = ("volumes", "windows used", "spacing given in mm")


def how_it_was_made(records: dict[str, RunRecord]) -> dict:
    """Return the settings, a value for each group of volumes that share all of them, the volumes
    that were made by other code, and the findings about input files with their volumes.
    """
    settings = pd.DataFrame([{"volumes": image} | _settings(records[image]) for image in records])
    settings = settings.fillna(NOT_RECORDED)
    if len(settings):
        groups = settings.groupby([name for name in settings if name not in JOINED], sort=False)
        joined = {name: _joined for name in JOINED if name in settings}
        settings = groups.agg(joined).reset_index()[list(settings)]
    codes = {image: record.environment.get("code_sha256") for image, record in records.items()}
    findings = {}
    for image, record in records.items():
        for found in record.findings:
            title = found["name"] + (", a fault that was allowed" if found["is_allowed"] else "")
            findings.setdefault(title, {})[image] = found["message"]
    return {
        "findings": findings,
        "settings": settings.to_dict("list"),
        "are_alike": len(settings) < 2,
        "other_code": [image for image, code in codes.items() if code != code_sha256()],
    }


def settings_of_runs(records: dict[str, dict[str, RunRecord]]) -> pd.DataFrame:
    """Return the deciding settings that are not the same in all runs, a row each.

    records: run -> volume -> record.

    Columns: `setting`, and one per run with its values.
    """
    values = {
        run: pd.DataFrame([_deciding(record) for record in of_run.values()])
        .fillna(NOT_RECORDED)
        .agg(_joined)
        for run, of_run in records.items()
        if of_run
    }
    table = pd.DataFrame(values).fillna(NOT_RECORDED)
    table = table[table.nunique(axis=1) > 1]
    return table.rename_axis("setting").reset_index()


def _settings(record: RunRecord) -> dict[str, str]:
    """Return the settings of a volume, and what it was computed with, each as text."""
    environment = record.environment
    packages = environment.get("packages", {}) | record.segmenter.get("packages", {})
    low_high = record.window_hu
    settings = {"model": record.segmenter.get("model"), **_deciding(record)}
    settings["spacing given in mm"] = as_text(record.reading.get("spacing_mm"))
    if "window" in settings:
        settings["windows used"] = "{:g} to {:g} HU".format(*low_high) if low_high else "none"
        if record.options.get("preprocessing") == "native":
            settings["windows used"] += ", of the model's authors"
    settings |= {
        "device": environment.get("device"),
        "threads": environment.get("threads"),
        "commit of the code": environment.get("commit"),
        "Python": environment.get("python"),
        "packages": ", ".join(f"{name} {version}" for name, version in packages.items()),
    }
    return {name: str(value or NOT_RECORDED) for name, value in settings.items()}


def _deciding(record: RunRecord) -> dict[str, str]:
    settings = {
        TITLES.get(name, name.removeprefix("--").replace("_", " ")): value
        for name, value in deciding_settings(record).items()
    }
    if weights := record.segmenter.get("weights"):
        settings["weights"] = ", ".join(f"{name} {sha256}" for name, sha256 in weights.items())
    elif "weights" in settings:
        is_baseline = record.segmenter.get("family") == "baseline"
        settings["weights"] += f", {'no weights' if is_baseline else NOT_RECORDED}"
    return settings


def _joined(values: pd.Series) -> str:
    return ", ".join(dict.fromkeys(values))
