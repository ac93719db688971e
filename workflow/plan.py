#!/usr/bin/env python
"""Print the cases of a study and the results folders of its models, as JSON, for the Snakefile.

python workflow/plan.py --dataset datasets/paper.yml --output_folder working_data/results

The options are those of process_image.py. Keys of the JSON:

cases: for each case a hash of where its files are and how they are read.
patients: a hash of the patients and subsets of all cases.
models: for each model, by the name of its folder, `options`, which select it, and `runs`, its
results folders. One run for each model with these options gives the same folders as one for all.
"""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from sam_lungs.segmenters.presets import folder_name
from sam_lungs.study.options import Options
from sam_lungs.utils.cli import parse_options, run_script
from sam_lungs.utils.errors import InputError


def hash_of(value: object) -> str:
    return hashlib.sha256(repr(value).encode()).hexdigest()[:16]


def main() -> None:
    options = parse_options(
        Options,
        "Print the cases of a study and the results folders of its models, as JSON.",
        "python workflow/plan.py --dataset datasets/paper.yml --output_folder working_data/results",
    )
    if options.output_folder is None:
        raise InputError("the results need one folder; give --output_folder")
    models = {}
    for one in options.for_each_model():
        # With several models the names of protocols begin with this folder.
        name = folder_name(one.model or "model_folder")
        folder = options.output_folder / (name if len(options.models) > 1 else "")
        models[name] = {
            "options": ["--output_folder", str(folder)]
            + (["--model", one.model] if one.model else []),
            "runs": [str(options.output_folder / protocol) for protocol in one.protocols],
        }
    cases = options.case_files
    plan = {
        "cases": [hash_of(replace(each, patient=None, subset=None)) for each in cases],
        "patients": hash_of([(each.name, each.patient, each.subset) for each in cases]),
        "models": models,
    }
    print(json.dumps(plan))


if __name__ == "__main__":
    run_script(main)
