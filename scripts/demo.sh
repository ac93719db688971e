#!/usr/bin/env bash
# Runs the study on two synthetic patients with the compact SAM: no dataset, no weights, no network
# after setup. A synthetic patient and a small model: it shows how the study works, not what SAM can.
# usage: scripts/demo.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

scripts/setup.sh
find_python

folder=working_data/demo
"${python[@]}" -m sam_lungs.phantom --output_folder datasets/phantom --cases 2 --slices 48 --seed 0
for name in phantom_001 phantom_002; do
  "${python[@]}" nifti_to_numpy.py \
    -i "datasets/phantom/CT/$name.nii.gz" -o "$folder/image_$name.npy"
  "${python[@]}" nifti_to_numpy.py \
    -i "datasets/phantom/Lung_Mask/$name.nii.gz" -o "$folder/masks_$name.npy"
  images+=("$folder/image_$name.npy")
  masks+=("$folder/masks_$name.npy")
done

"${python[@]}" process_image.py -i "${images[@]}" -m "${masks[@]}" --model compact --debug

# One slice, prompted with more and more of what the paper prompts with.
prompt() {
  echo "$1:"
  "${python[@]}" process_image.py -i "${images[0]}" -m "${masks[0]}" --slice 18 --model compact \
    --debug --output_folder "$folder/prompts/$1/results" "${@:2}"
}
prompt 1_points --points centroid --negative none --no_box
prompt 2_points_inside --negative none --no_box
prompt 3_negative --no_box
prompt 4_box

"${python[@]}" join_results.py --results_folder_path "$folder/results"
echo "Pictures worth opening:"
echo "  $folder/results/study.png"
ls "$folder"/debug/*/slice_18_prediction.png "$folder"/prompts/*/debug/*/*.png | sed 's/^/  /'
