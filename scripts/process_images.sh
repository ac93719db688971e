#!/usr/bin/env bash
# Runs the study: segments the 20 volumes with one loaded model, joins their results, reports.
# usage: scripts/process_images.sh [process_image.py options, paths from the project's root]
# Stopped or killed, the same command goes on where it was; --dry_run checks all of it beforehand.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"
find_python

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

results_folder=working_data/results
protocols=
has_results=true
previous=
for argument in "$@"; do
  case $argument in
    --output_folder=*) results_folder=${argument#*=} ;;
    --prompts=*) protocols=${argument#*=} ;;
    --dry_run | --slice | --slice=* | --help | -h | -[!-]*[ns]* | -[ns]*) has_results=false ;;
  esac
  case $previous in
    --output_folder) results_folder=$argument ;;
    --prompts) protocols=$argument ;;
  esac
  previous=$argument
done

kindly "${python[@]}" process_image.py \
  --image_file_path "${images[@]}" --masks_file_path "${masks[@]}" "$@"
if $has_results; then
  results_folders=("$results_folder")
  if [[ $protocols ]]; then
    IFS=, read -ra names <<<"$protocols"
    results_folders=("${names[@]/#/$results_folder/}")
  fi
  for folder in "${results_folders[@]}"; do
    "${python[@]}" join_results.py --results_folder_path "$folder"
  done
  others=("${results_folders[@]:1}")
  "${python[@]}" make_report.py --results_folder_path "${results_folders[0]}" \
    ${others:+--compare "${others[@]}"}
fi
