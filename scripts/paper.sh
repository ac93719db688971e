#!/usr/bin/env bash
# Repeats the table or one figure of the paper.
# usage: scripts/paper.sh NAME [process_image.py options, see docs/options.md]
#   table_1   the study: Jaccard index and Dice score over all slices with lung
#   figure_1  the method on one slice: image, reference masks, prompts, predicted mask
#   figure_2  the effect of each prompt: points, points inside, negative point, box
#   figure_3  the slice whose numbers the authors publish: Jaccard 0.9837, Dice 0.9918
#   figure_4  the negative point, moved down row by row
#   figure_5  a point in each lung, or in every connected region
# The pictures of a figure are in working_data/paper/NAME/debug/. Options given here take
# precedence: -i, -m and -s draw another slice.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

name=${1:-}
case $name in
  table_1) exec scripts/process_images.sh "${@:2}" ;;
  figure_1) volume=coronacases_001 slice=98 protocols=paper ;;
  figure_2) volume=coronacases_001 slice=85 protocols=centroid_points,points,no_box,paper ;;
  figure_3) volume=coronacases_001 slice=122 protocols=paper ;;
  figure_4)
    volume=coronacases_001 slice=177
    protocols=no_box,paper,negative_15,negative_30,negative_45,negative_45_no_box,negative_60
    ;;
  figure_5)
    volume=radiopaedia_10_85902_3 slice=171
    protocols=points,contours_points,no_box,contours_no_box,paper,contours
    ;;
  *) fail "give a name, table_1 or figure_1 to figure_5; see --help" ;;
esac

find_python
echo "pictures: working_data/paper/$name/debug/"
exec "$python" process_image.py \
  -i "working_data/image_$volume.npy" -m "working_data/masks_$volume.npy" --slice "$slice" \
  --prompts "$protocols" --debug --output_folder "working_data/paper/$name/results" "${@:2}"
