"""A run record -> clauses of a methods section. A value that is not in run.json is said to be."""

from pathlib import PurePath

from sam_lungs.study.run_record import RunRecord
from sam_lungs.summary.methods_wording import References, code, count, listed

# Families without weights. The predictions of `masks` were made elsewhere.
BASELINE, MASKS = "baseline", "masks"
ALIGNMENTS = {
    "auto": "image and masks were compared voxel by voxel, after a check that their axes agree and"
    " that their positions differ by less than a voxel where the files have positions",
    "affine": "masks were turned and moved onto the grid of the image by the affines of both,"
    " without interpolation",
    "voxels": "image and masks were compared voxel by voxel, whatever their affines say",
}
PROVENANCE = {
    "official": ", which are the published ones",
    "seen": ", unchanged since they were fetched from the hub",
    "given": ", a file or folder of the user",
}


def missing(name: str) -> str:
    """Return the clause that says that a value is not recorded."""
    return f"{name} is not recorded"


def is_elsewhere(record: RunRecord) -> bool:
    """Return whether the predictions were made elsewhere and only measured here."""
    return record.segmenter.get("family") == MASKS


def dataset(record: RunRecord) -> str:
    """Say the dataset file, by its name without folders."""
    if path := record.other_options.get("dataset"):
        return f"the volumes are those of the dataset file {code(PurePath(path).name)}"
    return missing("the name of the dataset")


def reading(record: RunRecord) -> str:
    """Say which labels are objects, how masks lie over the image, and a given spacing."""
    if objects := record.reading.get("objects"):
        named = (f"{code(name)} ({' + '.join(map(str, each))})" for name, each in objects.items())
        text = f"the objects are these labels of the reference masks: {listed(named)}"
    elif len(record.masks) > 1:
        text = f"each of the {len(record.masks)} masks files is an object"
    elif "objects" in record.reading:
        text = "each label of the reference mask but 0 is an object"
    else:
        text = missing("which labels are objects")
    text += (
        f"; {ALIGNMENTS.get(record.reading.get('align'), missing('the alignment of the masks'))}"
    )
    if spacing_mm := record.reading.get("spacing_mm"):
        text += f"; the spacing was given as {listed(f'{each:g}' for each in spacing_mm)} mm"
    return text


def window(record: RunRecord) -> str:
    """Say the window."""
    if is_elsewhere(record):
        return ""
    if not record.window_hu:
        return "gray values were used without a window"
    low, high = record.window_hu
    text = f"gray values were clipped to {low:g} to {high:g} HU"
    text += f" (level {(low + high) / 2:g}, width {high - low:g})"
    if record.options.get("preprocessing") == "native":
        text += ", the window of the model's authors"
    return text


def preprocessing(record: RunRecord) -> str:
    """Say what happens to a slice after the window."""
    if is_elsewhere(record):
        return ""
    recorded = record.segmenter.get("preprocessing")
    if not recorded:
        return missing("the preprocessing after the window")
    text = f"the preprocessing is recorded as {code(recorded)}"
    if record.segmenter.get("family") == BASELINE:
        return text
    range_text = "the lowest and the highest value of each slice became 0 and 255, in 8 bits"
    return f"{range_text}; {text}"


def model(record: RunRecord, references: References) -> str:
    """Say the model, its weights by SHA-256, its precision, and which of its masks is used."""
    segmenter = record.segmenter
    name, family = segmenter.get("model"), segmenter.get("family")
    named = code(name) if name else "not recorded by name"
    if family == MASKS:
        return f"the predicted masks are {named}, and their model is not recorded"
    if family == BASELINE:
        text = f"the masks are those of the baseline {named}, which has no weights"
    else:
        cited = references.cite(f"family {family}", f"model {str(name).split('_')[0]}")
        text = f"the model is {named}"
        text += f" of the family {code(family)}" if family else ""
        text += f"{cited}, {_weights(segmenter)}"
        precision = record.options.get("precision")
        encoder = "its image encoder ran in " + code(precision)
        text += f"; {encoder if precision else missing('the precision of the image encoder')}"
    for key, meaning in (
        ("mask_choice", "the mask that was used is recorded as"),
        ("mask_rule", "how its outputs became a mask is recorded as"),
        ("note", "the record notes"),
    ):
        if segmenter.get(key):
            text += f"; {meaning} {code(segmenter[key])}"
    return text


def hardware(record: RunRecord) -> str:
    """Say the device, the threads and the operating system; no name of a machine."""
    environment = record.environment
    device, threads = environment.get("device"), environment.get("threads")
    text = f"the device is {code(device)}" if device else missing("the device")
    text += f", with {count(threads, 'CPU thread')}" if threads else ""
    # The rest of the platform's name is about the machine.
    system = str(environment.get("system") or "").partition("-")[0]
    return text + (f", under {system}" if system else f"; {missing('the operating system')}")


def software(record: RunRecord, references: References) -> str:
    """Say the versions of the code, Python and packages."""
    environment = record.environment
    commit, python = environment.get("commit"), environment.get("python")
    text = f"the results were computed by sam-lungs{references.cite('paper')} at"
    text += f" commit {code(commit)}" if commit else " a commit that is not recorded"
    if str(commit).endswith("-dirty"):
        text += " with changes that are not in the commit"
    text += f" (version {record.numbers_version} of the code that makes the numbers),"
    text += f" in Python {python}" if python else " in a version of Python that is not recorded"
    packages = environment.get("packages", {}) | record.segmenter.get("packages", {})
    if not packages:
        return f"{text}, with packages whose versions are not recorded"
    versions = (f"{name} {packages[name]}{references.cite(f'package {name}')}" for name in packages)
    return f"{text}, with {listed(versions)}"


def _weights(segmenter: dict) -> str:
    weights = segmenter.get("weights")
    if not weights:
        return "with weights whose SHA-256 is not recorded"
    hashes = listed(f"{code(name)} (SHA-256 {code(weights[name])})" for name in weights)
    licence = segmenter.get("licence")
    text = f"with the weights {hashes}{PROVENANCE.get(segmenter.get('provenance'), '')}"
    return f"{text}, under the licence {licence}" if licence else text
