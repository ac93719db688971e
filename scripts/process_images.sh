#!/usr/bin/env bash
# Runs the study: segments the 20 volumes below, joins their results, and writes the report.
# usage: scripts/process_images.sh [process_image.py options, see docs/options.md]
#   --dry_run    check every input file first, and estimate the time
# Paths are relative to the project's root. Run the same command again to resume an interrupted run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

find_python
# Edit this list to process other volumes.
volumes=(
  coronacases_001
  coronacases_002
  coronacases_003
  coronacases_004
  coronacases_005
  coronacases_006
  coronacases_007
  coronacases_008
  coronacases_009
  coronacases_010
  radiopaedia_10_85902_1
  radiopaedia_10_85902_3
  radiopaedia_14_85914_0
  radiopaedia_27_86410_0
  radiopaedia_29_86490_1
  radiopaedia_29_86491_1
  radiopaedia_36_86526_0
  radiopaedia_40_86625_0
  radiopaedia_4_85506_1
  radiopaedia_7_85703_0
)
for volume in "${volumes[@]}"; do
  images+=("working_data/image_$volume.npy")
  masks+=("working_data/masks_$volume.npy")
done

exec "$python" process_image.py \
  --image_file_path "${images[@]}" --masks_file_path "${masks[@]}" --report "$@"
