#!/usr/bin/env python
"""Join the results of all volumes of a study into the study's tables."""

from dataclasses import dataclass
from pathlib import Path

from sam_lungs.summary.join import (
    check_parquet,
    join_results,
    print_means,
    warn_of_unknown_patients,
    write_tables,
)
from sam_lungs.summary.mixing import MixingOptions
from sam_lungs.summary.patients import PatientOptions
from sam_lungs.utils.cli import option, parse_options, run_script

EXAMPLE = "python join_results.py --results_folder_path working_data/results"


@dataclass(frozen=True)
class Options(MixingOptions, PatientOptions):
    """The options of this script."""

    results_folder_path: Path = option(
        "folder with a folder per volume, each with raw_data.csv or the authors' published tables",
        group="input and output",
        short="-r",
    )
    output_folder: Path | None = option(
        "where the tables are written",
        None,
        group="input and output",
        shown_default="the results folder",
    )
    parquet: bool = option(
        "write each table as Parquet too; needs pip install .[parquet]",
        False,
        group="input and output",
    )


def main() -> None:
    options = parse_options(Options, "Join the results of a study's volumes.", EXAMPLE)
    if options.parquet:
        check_parquet()
    joined = join_results(options.results_folder_path, options.read_patients(), options.allow_mixed)
    warn_of_unknown_patients([joined])
    folder = options.output_folder or options.results_folder_path
    write_tables(joined, folder, options.parquet)
    print_means(joined)


if __name__ == "__main__":
    run_script(main)
