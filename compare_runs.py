#!/usr/bin/env python
"""Compare several runs of a study pair by pair, over patients."""

import sys
from dataclasses import dataclass
from pathlib import Path

from sam_lungs.study.results import write_csv
from sam_lungs.summary.compare import COMPARISON_NAME, compare_runs, read_runs
from sam_lungs.summary.join import warn_of_unknown_patients
from sam_lungs.summary.mixing import MixingOptions
from sam_lungs.summary.models import MODELS_NAME, models_table
from sam_lungs.summary.paired import EXACT_CASES
from sam_lungs.summary.patients import PatientOptions
from sam_lungs.summary.ranking import RANKING_NAME, rank_runs
from sam_lungs.summary.references import different_inputs
from sam_lungs.summary.settings import settings_of_runs
from sam_lungs.summary.statistics import APPROXIMATE_BELOW, CONFIDENCE, FEWEST_CASES, RESAMPLES
from sam_lungs.utils.cli import option, parse_options, run_script
from sam_lungs.utils.files import remove

EXAMPLE = "python compare_runs.py -r results/paper results/no_box --output_folder comparison"
SENTENCE = (
    f"Second minus first, means over patients. low, high: {CONFIDENCE:.0%} bootstrap interval, none"
    f" below {FEWEST_CASES} patients, approximate below {APPROXIMATE_BELOW}.\n"
    f"p: permutation test of the mean difference, {RESAMPLES} resamples, exact up to {EXACT_CASES}"
    " patients.\n"
    "effect: rank-biserial correlation. effect_p: Wilcoxon's test, which belongs to it."
)


@dataclass(frozen=True)
class Options(MixingOptions, PatientOptions):
    """The options of this script."""

    results_folder_path: list[Path] = option(
        "results folders of two or more runs, each with a folder per volume",
        group="input and output",
        short="-r",
    )
    output_folder: Path = option(
        f"where {COMPARISON_NAME}, {MODELS_NAME} and, of more than two runs, {RANKING_NAME} are"
        " written",
        group="input and output",
    )


def main() -> None:
    options = parse_options(Options, "Compare runs of a study pair by pair.", EXAMPLE)
    runs = read_runs(options.results_folder_path, options.read_patients(), options.allow_mixed)
    table = compare_runs(runs)
    write_csv(table, options.output_folder / COMPARISON_NAME)
    warn_of_unknown_patients(runs.values())
    for line in different_inputs(runs):
        print(f"warning: {line}", file=sys.stderr)
    print(SENTENCE)
    print(table.to_string(index=False, na_rep="-", float_format="{:.4g}".format))
    settings = settings_of_runs({name: run.records for name, run in runs.items()})
    if len(settings):
        print("\nThe runs differ in:", settings.to_string(index=False), sep="\n")
    models = models_table(runs)
    if len(models):
        write_csv(models, options.output_folder / MODELS_NAME)
        shown = models.drop(columns=["preprocessing", "note", "exposure_source"])
        print("\nModels:", shown.to_string(index=False, na_rep="-"), sep="\n")
    if len(runs) > 2:
        ranking = rank_runs(runs)
        write_csv(ranking, options.output_folder / RANKING_NAME)
        print("\nRanking by mean Dice score over patients, over the slices that all runs have.")
        print(f"first to leader_not_best: over {RESAMPLES} draws of the patients.")
        print(ranking.to_string(index=False, na_rep="-", float_format="{:.4g}".format))
    else:
        remove(options.output_folder / RANKING_NAME)


if __name__ == "__main__":
    run_script(main)
