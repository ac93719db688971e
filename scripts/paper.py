"""The commands of `scripts/paper.sh figure_N`, run in the project's root."""

import sys
from pathlib import Path

from commands import run, say

# Volume, slice, prompt protocols, and what is drawn over the slice.
EVERYTHING = "mask,contours,points,box"
FIGURES = {
    "figure_1": [
        ("coronacases_001", 122, "paper", EVERYTHING),
        ("radiopaedia_10_85902_3", 171, "paper", EVERYTHING),
    ],
    "figure_2": [("coronacases_001", 98, "centroid_points,points", "points")],
    "figure_4": [("coronacases_001", 85, "paper,negative_45", EVERYTHING)],
    "figure_5": [("coronacases_001", 177, "centroid_points,points,no_box,paper", EVERYTHING)],
}

if not {*sys.argv[1:2]} & {*FIGURES, "figure_3"}:
    sys.exit("error: run scripts/paper.sh with figure_1 to figure_5; see its --help")
_, name, *options = sys.argv
folder = Path("working_data/paper") / name
if name == "figure_3":
    run([sys.executable, "-m", "sam_lungs.summary.figure_3", "--output_folder", folder, *options])
    sys.exit()
process = [sys.executable, "process_image.py", "--debug", "--output_folder", folder / "results"]
for volume, index, protocols, layers in FIGURES[name]:
    slice_of = [f"working_data/{kind}_{volume}.npy" for kind in ("image", "masks")]
    chosen = ["-i", slice_of[0], "-m", slice_of[1], "--slice", index, "--prompts", protocols]
    run([*process, *chosen, "--draw", layers, *options])
pictures = sorted((folder / "debug").rglob("*.png"))
say("Open these pictures:", *(f"  {picture}" for picture in pictures))
