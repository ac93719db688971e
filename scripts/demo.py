"""The commands of `scripts/demo.sh`, run in the project's root."""

import shutil
import sys
from pathlib import Path

from commands import run, say

FOLDER = Path("working_data/demo")
RESULTS = FOLDER / "results"
NAMES = ["phantom_001", "phantom_002"]
IMAGES = [FOLDER / f"image_{name}.npy" for name in NAMES]
MASKS = [FOLDER / f"masks_{name}.npy" for name in NAMES]
PATIENTS = ["--patients", r"image_(phantom_\d+)"]
# The same slices with fewer prompts, and with the negative point moved down.
OTHERS = [
    *("centroid_points", "points", "no_box"),
    *("negative_15", "negative_30", "negative_45", "negative_60"),
]
# Prompts in every 5th and 10th slice, and two baselines without weights.
EFFORTS = ["paper_every_5", "paper_every_10"]
BASELINES = ["box", "threshold"]

# The results of other versions of the code would be refused.
shutil.rmtree(FOLDER, ignore_errors=True)

phantom = FOLDER / "phantom"
make_phantoms = [sys.executable, "-m", "sam_lungs.synthetic.phantom", "--output_folder", phantom]
run([*make_phantoms, "--cases", 2, "--slices", 48, "--seed", 0])

niftis = [phantom / folder / f"{name}.nii.gz" for folder in ("CT", "Lung_Mask") for name in NAMES]
run([sys.executable, "nifti_to_numpy.py", "-i", *niftis, "-o", *IMAGES, *MASKS])

process = [sys.executable, "process_image.py", "--model", "compact", "--output_folder", RESULTS]
study = [*process, "-i", *IMAGES, "-m", *MASKS]
paper = ["--prompts", "paper", "--empty_slices", "nearest"]
paper += ["--metrics", "dice_3d,nsd_3d,hd95_3d", "--tolerance_mm", "1,2,5"]
run([*study, *paper, "--debug", "--save_masks"])
run([*study, *paper, "--prompt_every", "5,10"])
run([*study, *paper, "--model", ",".join(BASELINES)])
run([*study, "--prompts", ",".join(OTHERS)])
# One slice, with one more prompt in each picture.
one_slice = [*process, "-i", IMAGES[0], "-m", MASKS[0], "--slice", 18, "--debug"]
run([*one_slice, "--prompts", "centroid_points,points,no_box,paper"])

# Clicks of a simulated user, and a map of where one may click. The compact model was not trained
# with mask prompts.
explore = [sys.executable, "explore_prompts.py"]
options = ["--model", "compact", "--output_folder", RESULTS]
clicks = ["clicks", "--clicks", "5", "--no_mask_prompts"]
run([*explore, *clicks, *options, "-i", *IMAGES, "-m", *MASKS])
one_map = ["map", "--slice", "18", "--debug"]
run([*explore, *one_map, *options, "-i", IMAGES[0], "-m", MASKS[0]])

run([sys.executable, "join_results.py", "-r", RESULTS / "paper", *PATIENTS])
others = [RESULTS / name for name in (*OTHERS, *EFFORTS)]
others += [RESULTS / name / "paper" for name in BASELINES]
make_report = [sys.executable, "make_report.py", "-r", RESULTS / "paper", *PATIENTS]
run([*make_report, "--compare", *others])
pictures = sorted(FOLDER.glob("debug/**/slice_18_*.png"))
say("Open that report, and these pictures:", *(f"  {picture}" for picture in pictures))
