#!/usr/bin/env python
"""Join the results of a study's volumes into its tables.

python join_results.py --results_folder_path working_data/results
"""

import argparse
from pathlib import Path

from sam_lungs.summary.join import join_results, write_study
from sam_lungs.utils.errors import run_script


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Join the results of a study's volumes.", allow_abbrev=False
    )
    parser.add_argument(
        "-r",
        "--results_folder_path",
        type=Path,
        required=True,
        help="holds a folder per volume, each with a raw_data.csv (or the authors' published ones)",
    )
    parser.add_argument(
        "--output_folder", type=Path, help="where the tables go, in place of the results folder"
    )
    args = parser.parse_args()
    output_folder = args.output_folder or args.results_folder_path
    study = join_results(args.results_folder_path)
    write_study(study, output_folder)
    print(study.summary.to_string(index=False))
    print("\nMeans of volumes (bootstrap) and of patients (t), with 95 % intervals over patients:")
    print(study.intervals.round(4).to_string(index=False))


if __name__ == "__main__":
    run_script(main)
