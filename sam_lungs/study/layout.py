"""Names and folders of the files of a study.

<study folder>/<protocol>/<volume>/    the results of one volume
<study folder>/<protocol>/             the joined tables, report.html, figures/ and methods/
debug/<protocol>/<volume>/             beside the study folder: pictures made with --slice

Without --prompts there is no folder <protocol>. With several models <protocol> is
<model>/<protocol>, or without --prompts <model>.
"""

import os
from pathlib import Path

from sam_lungs.data.case_files import CaseFiles

# A volume's files. run.json is written last and holds the SHA-256 of the others.
RAW_DATA_NAME = "raw_data.csv"
SUMMARY_NAME = "results.csv"
EMPTY_SLICES_NAME = "empty_slices.csv"
MASKS_NAME = "predicted_masks.nii.gz"
RUN_NAME = "run.json"
DEBUG_FOLDER = "debug"
# The finished slices of an unfinished run; removed when the volume is finished.
UNFINISHED_FOLDER = "unfinished"
# Files of a whole study.
FIGURES_FOLDER = "figures"
METHODS_FOLDER = "methods"
REPORT_NAME = "report.html"


def study_folder(output_folder: Path | None, files: CaseFiles) -> Path:
    """Return the study folder of a case.

    It is `output_folder`, or `results/` in the root of the dataset, or `results/` beside the image.
    """
    beside = files.root or files.path.parent
    return Path(os.path.abspath(output_folder or beside / "results"))


def results_folder(study_folder: Path, protocol: str, name: str) -> Path:
    """Return the folder of a volume's results for the prompt protocol of that name."""
    return study_folder / protocol / name


def slice_debug_folder(study_folder: Path, protocol: str, name: str) -> Path:
    """Return the folder of the pictures that are made with `--slice`."""
    return study_folder.parent / DEBUG_FOLDER / protocol / name


def picture_name(index: int) -> str:
    """Return the file name of the picture of a slice."""
    return f"slice_{index}_prediction.png"


def prompts_name(index: int) -> str:
    """Return the file name of the prompts of a slice."""
    return f"slice_{index}_prompt.yml"
