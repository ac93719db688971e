"""run.json: how a volume's results were made, and whether they are still valid.

A finished volume is valid as long as its fingerprint is the same: inputs, weights, options that
decide the results, prompts and NUMBERS_VERSION. The environment (device, threads, packages, code)
is only recorded.
"""

import json
import platform
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cache, cached_property
from pathlib import Path
from typing import get_args, get_origin

from sam_lungs.study.explore.layout import VALUES_NAME
from sam_lungs.study.layout import RAW_DATA_NAME, RUN_NAME
from sam_lungs.utils import provenance
from sam_lungs.utils.errors import InputError
from sam_lungs.utils.files import atomic_write, sha256_of

# Increase this by hand when the same inputs and options give other numbers.
# tests/study/test_golden.py fails when the numbers change and this does not.
NUMBERS_VERSION = 3
# The code that makes the numbers.
CODE = (
    *("data/*.py", "prompts/*.py", "segmenters/*.py", "study/explore/*.py"),
    *(
        f"study/{name}.py"
        for name in (
            *("measure", "metrics", "pipeline", "process", "recorder", "replay", "results"),
            *("score", "surfaces"),
        )
    ),
)
# Keys of `reading` whose option has another name.
READING_OPTIONS = {"objects": "labels"}


@dataclass(frozen=True)
class RunRecord:
    """The content of a volume's run.json.

    image, masks: `file`, `sha256`, and for an array with a sidecar `conversion`, its SHA-256; masks
        has an entry per masks file.
    reading: `data.case.Reading` without `allow`: how the files are read.
    segmenter: the segmenter's identity, see `segmenters.base`.
    options: the options that decide the results, without those in `reading`. other_options: all
        others, without those that name volumes. command: the command line, of several volumes only
        this one.
    protocol: the prompt protocol, or `prompts_file`, its name, and `sha256` of the prompts of this
        volume. window_hu: lowest and highest value of the window, or None.
    patient, subset: from the dataset file. dataset: `file` and `sha256` of that file, None without
        one; not in the fingerprint, because one more volume must not invalidate the others.
    findings: `name`, `message` and `is_allowed` of each warning and each fault that was accepted.
    predictions: as `masks`, of predicted masks that were scored; empty for a model's run.
    environment: `device`, `threads`, `packages`, `code_sha256`, `commit`, `python`, `system`.
    started: time in UTC. seconds, seconds_per_slice: time that segmenting took.
    files: the SHA-256 of the other result files, by their paths in the folder.
    """

    numbers_version: int
    image: dict
    masks: list[dict]
    reading: dict
    segmenter: dict
    options: dict
    other_options: dict
    protocol: dict
    environment: dict
    command: list[str]
    window_hu: list[float] | None = None
    patient: str | None = None
    subset: str | None = None
    dataset: dict | None = None
    findings: list[dict] = field(default_factory=list)
    predictions: list[dict] = field(default_factory=list)
    started: str | None = None
    seconds: float | None = None
    seconds_per_slice: float | None = None
    files: dict[str, str] | None = None

    @classmethod
    def from_json(cls, content: object) -> "RunRecord":
        """Return the record in parsed JSON; raises `ValueError` when it is not one."""
        if not isinstance(content, dict):
            raise ValueError("not an object")
        for each in fields(cls):
            value = content.get(each.name, each.default)
            if each.type in (int, dict, str | None, dict | None):
                is_valid = isinstance(value, each.type)
            elif get_origin(each.type) is list:
                (item_type,) = get_args(each.type)
                is_valid = isinstance(value, list) and all(
                    isinstance(item, item_type) for item in value
                )
            else:
                continue
            if not is_valid:
                raise ValueError(f"{each.name} is {value!r}")
        weights = content["segmenter"].get("weights", {})
        if not (isinstance(weights, dict) and all(isinstance(x, str) for x in weights.values())):
            raise ValueError(f"weights are {weights!r}")
        return cls(
            **{each.name: content[each.name] for each in fields(cls) if each.name in content}
        )

    @classmethod
    def read(cls, folder: Path) -> "RunRecord | None":
        """Read the run.json of a results folder; None without one.

        Raises `InputError` when it is not a run record.
        """
        path = folder / RUN_NAME
        try:
            record = cls.from_json(json.loads(path.read_bytes()))
            names = record.files if isinstance(record.files, dict) else {}
            if RAW_DATA_NAME not in names and VALUES_NAME not in names:
                raise ValueError(f"files are {record.files!r}")
            return record
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}: not a run record of this version; process the image again with"
                " --overwrite"
            ) from error

    def write(self, folder: Path, names: list[str]) -> None:
        """Write run.json with the SHA-256 of files of the folder.

        names: paths of the files in the folder. Raises `InputError` when it cannot be written.
        """
        files = {name: sha256_of(folder / name) for name in names}
        with atomic_write(folder / RUN_NAME) as temporary:
            temporary.write_text(json.dumps(asdict(replace(self, files=files)), indent=2) + "\n")

    def write_patient(self, folder: Path, other: "RunRecord") -> None:
        """Write run.json again with the patient and subset of another record, if they differ.

        Raises `InputError` when it cannot be written.
        """
        if (self.patient, self.subset) != (other.patient, other.subset):
            new = replace(self, patient=other.patient, subset=other.subset, dataset=other.dataset)
            new.write(folder, list(self.files))

    def changed_file(self, folder: Path) -> Path | None:
        """Return a result file that is missing or has changed since run.json was written."""
        for name, sha256 in self.files.items():
            path = folder / name
            if not path.exists() or sha256_of(path) != sha256:
                return path
        return None

    @cached_property
    def fingerprint(self) -> dict[str, object]:
        """Everything that decides the results, by name; JSON values."""
        reading = {READING_OPTIONS.get(name, name): value for name, value in self.reading.items()}
        return {
            "numbers version": self.numbers_version,
            **{f"--{name}": value for name, value in sorted((reading | self.options).items())},
            # Earlier versions had prompts in every slice and did not record it.
            **{
                f"prompts: {name}": value
                for name, value in ({"every": 1} | self.protocol).items()
                if name != "prompts_file"
            },
            **{
                f"{role} {key}": value
                for role, identity in self._inputs
                for key, value in identity.items()
                if key != "file"
            },
            # Without file names: a checkpoint, or a file of prompts, may be renamed.
            "weights": sorted(self.segmenter.get("weights", {}).values()),
            "preprocessing": self.segmenter.get("preprocessing"),
        }

    @property
    def _inputs(self) -> list[tuple[str, dict]]:
        """The name of each input file in a message, and its identity."""
        inputs = [("image", self.image)]
        for role, identities in (("masks", self.masks), ("predictions", self.predictions)):
            for number, identity in enumerate(identities, start=1):
                inputs.append((role if number == 1 else f"{role} file {number}", identity))
        return inputs

    @property
    def slices_made_by(self) -> dict[str, object]:
        """The slices of an unfinished run are kept only if these values are equal."""
        environment = self.environment
        packages = self.segmenter.get("packages", {}) | environment.get("packages", {})
        names = ("device", "threads", "python", "code_sha256")
        return {name: environment.get(name) for name in names} | packages


@cache
def environment(device: str) -> dict[str, object]:
    """Return the device, threads, packages and code of this process.

    Cached, because the code on the disk may change while the study runs.
    device: as `segmenters.devices.choose_devices` takes it.
    """
    # Imported here, because it takes seconds and reading records does not need it.
    import torch

    from sam_lungs.segmenters.devices import choose_devices

    return {
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": provenance.versions_of(provenance.PACKAGES),
        "device": ", ".join(provenance.device_name(each) for each in choose_devices(device)),
        "threads": torch.get_num_threads(),
        "code_sha256": code_sha256(),
        "commit": provenance.code_commit(),
    }


@cache
def code_sha256() -> str:
    """Return the hash of the code that makes the numbers, without comments and docstrings."""
    return provenance.code_sha256(CODE)
