#!/usr/bin/env python
"""Compare several runs of a study pair by pair, over patients."""

import sys
from dataclasses import dataclass
from pathlib import Path

from sam_lungs.study.results import write_csv
from sam_lungs.summary.compare import COMPARISON_NAME, compare_runs, read_runs
from sam_lungs.summary.join import warn_of_unknown_patients
from sam_lungs.summary.models import MODELS_NAME, different_inputs, models_table
from sam_lungs.summary.patients import PatientOptions
from sam_lungs.utils.cli import option, parse_options, run_script

EXAMPLE = "python compare_runs.py -r results/paper results/no_box --output_folder comparison"


@dataclass(frozen=True)
class Options(PatientOptions):
    """The options of this script."""

    results_folder_path: list[Path] = option(
        "results folders of two or more runs, each with a folder per volume",
        group="input and output",
        short="-r",
    )
    output_folder: Path = option(
        f"where {COMPARISON_NAME} and {MODELS_NAME} are written", group="input and output"
    )


def main() -> None:
    options = parse_options(Options, "Compare runs of a study pair by pair.", EXAMPLE)
    runs = read_runs(options.results_folder_path, options.read_patients())
    table = compare_runs(runs)
    write_csv(table, options.output_folder / COMPARISON_NAME)
    warn_of_unknown_patients(runs.values())
    for line in different_inputs(runs):
        print(f"warning: {line}", file=sys.stderr)
    print(
        "Second minus first, means over patients, 95 % bootstrap intervals, p of Wilcoxon's test:"
    )
    print(table.to_string(index=False, float_format="{:.4g}".format))
    models = models_table(runs)
    if len(models):
        write_csv(models, options.output_folder / MODELS_NAME)
        shown = models.drop(columns=["preprocessing", "note"])
        print("\nModels:", shown.to_string(index=False, na_rep="-"), sep="\n")


if __name__ == "__main__":
    run_script(main)
