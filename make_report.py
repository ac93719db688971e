#!/usr/bin/env python
r"""Draw a study's figures and write its report, one page that opens anywhere.

python make_report.py --results_folder_path working_data/results/paper \
    --compare working_data/results/no_box working_data/results/points
"""

import argparse
from pathlib import Path

from sam_lungs.summary.report import write_report
from sam_lungs.utils.errors import run_script


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Draw a study's figures and write its report.", allow_abbrev=False
    )
    parser.add_argument(
        "-r",
        "--results_folder_path",
        type=Path,
        required=True,
        help="holds a folder per volume; report.html and figures/ go there",
    )
    parser.add_argument(
        "--compare",
        type=Path,
        nargs="+",
        default=[],
        help="results folders of other runs over the same slices, such as other prompts",
    )
    parser.add_argument(
        "--published_folder", type=Path, help="the authors' results, a folder per volume"
    )
    args = parser.parse_args()
    print(write_report(args.results_folder_path, args.compare, args.published_folder))


if __name__ == "__main__":
    run_script(main)
