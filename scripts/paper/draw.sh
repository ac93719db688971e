#!/usr/bin/env bash
# Draws one slice with several prompt protocols into working_data/paper/NAME/debug.
# usage: scripts/paper/draw.sh NAME VOLUME SLICE PROTOCOL,PROTOCOL... [process_image.py options]
# Options come last and win: -i, -m and -s take another slice, paths from the project's root.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/../project.sh"
find_python

folder=working_data/paper/$1
"${python[@]}" process_image.py \
  -i "working_data/image_$2.npy" -m "working_data/masks_$2.npy" --slice "$3" --prompts "$4" \
  --debug --output_folder "$folder/results" "${@:5}"
echo "Pictures:"
find "$folder/debug" -name '*.png' | sort | sed 's/^/  /'
