#!/usr/bin/env python
r"""Segment the lungs in CT volumes with SAM, prompted from their lung masks; measure the result.

python process_image.py \
    --image_file_path working_data/image_coronacases_001.npy \
    --masks_file_path working_data/masks_coronacases_001.npy \
    --slice 122 --debug

Without --slice it processes whole volumes and writes the results of each to its own folder. After
an interruption or a kill, run the same command again to resume.
"""

from sam_lungs.study.layout import study_folder
from sam_lungs.study.options import Options
from sam_lungs.utils.cli import parse_options, run_script
from sam_lungs.utils.waiting import waiting

EXAMPLE = """python process_image.py -i working_data/image_coronacases_001.npy \\
      -m working_data/masks_coronacases_001.npy --slice 122 --debug"""


def main() -> int:
    options = parse_options(
        Options,
        "Segment the lungs in CT volumes with SAM, prompted from their lung masks, and measure the"
        " predicted masks.",
        EXAMPLE,
    )
    # Imported here, because torch takes seconds to import and --help does not need it.
    with waiting("loading PyTorch"):
        from sam_lungs.study.dry_run import check_study
        from sam_lungs.study.process import IN_USE, is_complete
        from sam_lungs.study.run import run_study

    if options.dry_run:
        return check_study(options)
    status = run_study(options)
    # After a fault a results folder may hold another run, which must not be in the report.
    wants_report = options.report and options.slice is None
    if wants_report and is_complete(status):
        from sam_lungs.summary.report import report_study

        folders = [study_folder(options.output_folder, files) for files in options.case_files]
        for folder in dict.fromkeys(folders):
            models = options.for_each_model()
            # A rater may have no prompts for the cases of a folder.
            asked = [folder / protocol for one in models for protocol in one.protocols]
            report_study([each for each in asked if each.is_dir()])
    return status & ~IN_USE


if __name__ == "__main__":
    run_script(main)
