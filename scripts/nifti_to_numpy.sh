#!/usr/bin/env bash
# Converts every volume of the dataset and its lung masks to NumPy arrays in working_data/.
# usage: scripts/nifti_to_numpy.sh [nifti_to_numpy.py options]
# What is converted already stays as it is; delete an array to have it made again.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"
find_python

images=datasets/zenodo/COVID-19-CT-Seg_20cases
masks=datasets/zenodo/Lung_Mask
volumes=("$images"/*.nii.gz "$masks"/*.nii.gz)
for volume in "${volumes[@]}"; do
  # A pattern that matches nothing stays as it is.
  [[ -e $volume ]] || fail "${volume%/*} holds no volumes: run scripts/download_dataset.sh"
done

total=${#volumes[@]}
number=0
for volume in "${volumes[@]}"; do
  number=$((number + 1))
  kind=image
  if [[ $volume == "$masks"/* ]]; then
    kind=masks
  fi
  name=${volume##*/}
  output=working_data/${kind}_${name%.nii.gz}.npy
  progress=$(printf '[%*d/%d] %s' "${#total}" "$number" "$total" "$output")

  if [[ -e $output && ! $volume -nt $output ]]; then
    echo "$progress: already converted, skipped"
  else
    echo "$progress"
    "${python[@]}" nifti_to_numpy.py --input_file_path "$volume" --output_file_path "$output" "$@"
  fi
done
