#!/usr/bin/env python
"""Draw the figures of a study and write its report: one self-contained HTML page."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sam_lungs.summary.compare import read_runs
from sam_lungs.summary.methods import write_methods
from sam_lungs.summary.mixing import MixingOptions
from sam_lungs.summary.patients import PatientOptions
from sam_lungs.summary.report import report_runs
from sam_lungs.utils.cli import option, parse_options, run_script

EXAMPLE = (
    "python make_report.py -r working_data/results/paper --compare working_data/results/no_box"
)


@dataclass(frozen=True)
class Options(MixingOptions, PatientOptions):
    """The options of this script."""

    results_folder_path: Path = option(
        "holds a folder per volume; report.html and figures/ are written there",
        group="input and output",
        short="-r",
    )
    compare: Sequence[Path] = option(
        "results folders of other runs over the same slices, such as other prompts",
        (),
        group="comparison",
        shown_default="none",
    )
    published_folder: Path | None = option(
        "the authors' results, a folder per volume",
        None,
        group="comparison",
        shown_default="the published slices, included in the code",
    )
    methods: bool = option(
        "write methods/ too: a methods text, a CLAIM checklist, and tables to deposit",
        False,
        group="input and output",
    )


def main() -> None:
    options = parse_options(Options, "Draw a study's figures and write its report.", EXAMPLE)
    patients, folder = options.read_patients(), options.results_folder_path
    runs = read_runs([folder, *options.compare], patients, options.allow_mixed)
    print(report_runs(folder, runs, options.published_folder, patients))
    if options.methods:
        print(write_methods(folder, runs))


if __name__ == "__main__":
    run_script(main)
