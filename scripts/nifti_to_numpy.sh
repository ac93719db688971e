#!/usr/bin/env bash
# Converts every volume of the dataset and its lung masks to NumPy arrays in working_data/.
# usage: scripts/nifti_to_numpy.sh [nifti_to_numpy.py options, see docs/options.md]
# Volumes that are already converted from the same file with the same options are skipped.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

find_python
images=datasets/zenodo/COVID-19-CT-Seg_20cases
masks=datasets/zenodo/Lung_Mask
volumes=("$images"/*.nii.gz "$masks"/*.nii.gz)
for volume in "${volumes[@]}"; do
  # Without a match, bash keeps the pattern itself.
  [[ -e $volume ]] || fail "${volume%/*} holds no volumes: run scripts/download_dataset.sh"
  kind=image
  if [[ $volume == "$masks"/* ]]; then
    kind=masks
  fi
  name=${volume##*/}
  arrays+=("working_data/${kind}_${name%.nii.gz}.npy")
done

exec "$python" nifti_to_numpy.py \
  --input_file_path "${volumes[@]}" --output_file_path "${arrays[@]}" "$@"
