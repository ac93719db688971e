"""How the results of volumes were made, for the report."""

from pathlib import Path

import pandas as pd

from sam_lungs.study.run_record import RunRecord, code_sha256


def how_it_was_made(records: dict[str, RunRecord]) -> dict:
    """Return the settings, a value for each group of volumes that share all of them, the volumes
    that were made by other code, and the findings about input files with their volumes.
    """
    settings = pd.DataFrame([{"volumes": image} | _settings(records[image]) for image in records])
    settings = settings.fillna("default")  # of the settings that _settings leaves out
    if len(settings):
        groups = settings.groupby(list(settings.columns[1:]), sort=False)
        settings = groups["volumes"].agg(", ".join).reset_index()
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


def _settings(record: RunRecord) -> dict[str, str]:
    """Return the settings of a volume; those of its files only if they are not the default."""
    options, environment, reading = record.options, record.environment, record.reading
    settings = {
        "model": record.segmenter.get("model"),
        "weights": record.segmenter.get("weights"),
        "precision of the encoder": options.get("precision"),
        "prompts": record.protocol or "made elsewhere",
        "objects": options.get("objects", "together"),
        "mask": record.segmenter.get("mask_choice"),
        "window": reading.get("window"),
        "device": environment.get("device"),
        "threads": environment.get("threads"),
        "commit of the code": environment.get("commit"),
        "Python": environment.get("python"),
        "packages": environment.get("packages", {}) | record.segmenter.get("packages", {}),
    }
    for name, value in settings.items():
        if isinstance(value, dict):
            settings[name] = ", ".join(f"{key} {one}" for key, one in value.items())
    if options.get("preprocessing", "common") != "common":
        low, high = record.window_hu
        settings["window"] = f"{low:g} to {high:g} HU, of the model's authors"
    settings = {name: str(value or "not recorded") for name, value in settings.items()}
    if reading.get("align", "auto") != "auto":
        settings["alignment of the masks"] = reading["align"]
    if objects := reading.get("objects"):
        labels = {name: "+".join(map(str, each)) for name, each in objects.items()}
        settings["labels of the objects"] = ", ".join(f"{name} {labels[name]}" for name in labels)
    if record.predictions:
        settings["scored masks"] = ", ".join(Path(each["file"]).name for each in record.predictions)
    if reading.get("spacing_mm"):
        settings["spacing in mm"] = ", ".join(map(str, reading["spacing_mm"]))
    return settings
