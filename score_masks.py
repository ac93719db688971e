#!/usr/bin/env python
r"""Score masks that were predicted elsewhere, as `process_image.py` scores those of a model.

python score_masks.py --predictions nninteractive/ --dataset my_data.yml --name nninteractive

Predicted masks are placed by their affine. Without an image, -m and -p are enough. The tables are
those of `process_image.py`, so results can be joined and compared.
"""

from sam_lungs.study.score_options import ScoreOptions
from sam_lungs.utils.cli import parse_options, run_script

EXAMPLE = """python score_masks.py -p their_masks.nii.gz -m lungs.nii.gz --name nninteractive \\
      --metrics dice_3d,nsd_3d,hd95_3d --tolerance_mm 1,2,5"""


def main() -> int:
    options = parse_options(
        ScoreOptions, "Score predicted masks against reference masks; no model is run.", EXAMPLE
    )
    # Imported here, because --help does not need it.
    from sam_lungs.study.process import IN_USE, is_complete
    from sam_lungs.study.score import results_folders, score_study

    status = score_study(options)
    wants_report = options.report and not options.dry_run
    if wants_report and is_complete(status):
        from sam_lungs.summary.report import report_study

        for folders in results_folders(options):
            report_study(folders)
    return status & ~IN_USE


if __name__ == "__main__":
    run_script(main)
