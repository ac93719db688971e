#!/usr/bin/env python
r"""Measure how the predicted masks depend on the prompts: where one clicks, how often, how well.

python explore_prompts.py map \
    --image_file_path working_data/image_coronacases_001.npy \
    --masks_file_path working_data/masks_coronacases_001.npy \
    --slice 122 --debug

Without --slice it explores whole volumes and writes the results of each to its own folder. After an
interruption or a kill, run the same command again to resume. docs/exploring.md describes the kinds.
"""

from sam_lungs.study.explore.options import ExploreOptions
from sam_lungs.study.layout import study_folder
from sam_lungs.utils.cli import parse_options, run_script
from sam_lungs.utils.waiting import waiting

EXAMPLE = """python explore_prompts.py map -i working_data/image_coronacases_001.npy \\
      -m working_data/masks_coronacases_001.npy --slice 122 --debug"""


def main() -> int:
    options = parse_options(
        ExploreOptions,
        "Measure how much the predicted masks depend on the prompts.",
        EXAMPLE,
    )
    # Imported here, because torch takes seconds to import and --help does not need it.
    with waiting("loading PyTorch"):
        from sam_lungs.study.explore.run import explore_study
        from sam_lungs.study.process import IN_USE, is_complete

    status = explore_study(options)
    # The tables of a study are of all its cases.
    wants_tables = options.slice is None and options.part is None
    if wants_tables and is_complete(status):
        from sam_lungs.summary.explored_report import summarize_explorations

        folders = [study_folder(options.output_folder, files) for files in options.case_files]
        for folder in dict.fromkeys(folders):
            summarize_explorations(folder, kinds=[options.kind])
    return status & ~IN_USE


if __name__ == "__main__":
    run_script(main)
