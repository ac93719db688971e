#!/usr/bin/env bash
# Runs the study on two synthetic patients with the compact SAM: no dataset, no weights, no network
# after setup. A synthetic patient and a small model: it shows how the study works, not what SAM can.
# usage: scripts/demo.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

scripts/setup.sh
find_python

folder=working_data/demo
# What an earlier version of the code made there would be refused.
rm -rf "$folder"
"${python[@]}" -m sam_lungs.synthetic.phantom --output_folder "$folder/phantom" --cases 2 --slices 48 --seed 0
for name in phantom_001 phantom_002; do
  "${python[@]}" nifti_to_numpy.py \
    -i "$folder/phantom/CT/$name.nii.gz" -o "$folder/image_$name.npy"
  "${python[@]}" nifti_to_numpy.py \
    -i "$folder/phantom/Lung_Mask/$name.nii.gz" -o "$folder/masks_$name.npy"
  images+=("$folder/image_$name.npy")
  masks+=("$folder/masks_$name.npy")
done

study=(process_image.py -i "${images[@]}" -m "${masks[@]}" --model compact)
study+=(--output_folder "$folder/results")
"${python[@]}" "${study[@]}" --prompts paper --debug --save_masks
# The same slices prompted with less, and with the negative point moved down.
others=centroid_points,points,no_box,negative_15,negative_30,negative_45,negative_60
"${python[@]}" "${study[@]}" --prompts "$others"
# One slice of the first patient, prompted with more and more of what the paper prompts with.
"${python[@]}" process_image.py -i "${images[0]}" -m "${masks[0]}" --model compact --slice 18 \
  --prompts centroid_points,points,no_box,paper --debug --output_folder "$folder/results"

"${python[@]}" join_results.py --results_folder_path "$folder/results/paper"
IFS=, read -ra names <<<"$others"
"${python[@]}" make_report.py --results_folder_path "$folder/results/paper" \
  --compare "${names[@]/#/$folder/results/}"
echo "Worth opening: that report, and these pictures:"
ls "$folder"/debug/*/*/slice_18_prediction.png | sed 's/^/  /'
