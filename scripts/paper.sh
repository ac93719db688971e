#!/usr/bin/env bash
# Repeats the table or one figure of the paper.
# usage: scripts/paper.sh NAME [options]
#   table_1   the study: Jaccard index and Dice score over all slices with lung
#   figure_1  the method on a slice of each half of the dataset: prompts and predicted mask
#   figure_2  positive points at the centroids, and moved into the lungs; nothing else is drawn
#   figure_3  box plots of the published slices; with -r FOLDER also of the study's results there
#   figure_4  the negative point between the lungs, and 45 rows down
#   figure_5  the prompts one after the other: centroids, moved inside, negative point, box
# Pictures are in working_data/paper/NAME/. Options of all but figure_3 are those of
# process_image.py, see docs/options.md; they take precedence: -i, -m and -s draw another slice.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

case ${1:-} in
  table_1) exec scripts/process_images.sh "${@:2}" ;;
  figure_[1-5]) ;;
  *) fail "give a name, table_1 or figure_1 to figure_5; see --help" ;;
esac

find_python
exec "$python" scripts/paper.py "$@"
