#!/usr/bin/env python
"""Compare runs of a study pair by pair, over patients.

python compare_runs.py -r results/paper results/no_box --output_folder working_data/comparison
"""

import argparse
from pathlib import Path

from sam_lungs.study.results import write_csv
from sam_lungs.summary.compare import compare_runs, read_runs
from sam_lungs.utils.errors import run_script


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Compare runs of a study pair by pair.", allow_abbrev=False
    )
    parser.add_argument(
        "-r",
        "--results_folder_path",
        type=Path,
        nargs="+",
        required=True,
        help="the runs, two or more; each holds a folder per volume with a raw_data.csv",
    )
    parser.add_argument(
        "--output_folder", type=Path, required=True, help="where comparison.csv goes"
    )
    args = parser.parse_args()
    table = compare_runs(read_runs(args.results_folder_path))
    write_csv(table, args.output_folder / "comparison.csv")
    print("Second minus first, over patients, with 95 % bootstrap intervals; p by Wilcoxon's test:")
    print(table.to_string(index=False, float_format="{:.4g}".format))


if __name__ == "__main__":
    run_script(main)
