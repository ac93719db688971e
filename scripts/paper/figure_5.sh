#!/usr/bin/env bash
# A point in each lung, or in every connected region.
# usage: scripts/paper/figure_5.sh [process_image.py options]
set -euo pipefail

exec "$(dirname "${BASH_SOURCE[0]}")/draw.sh" figure_5 radiopaedia_10_85902_3 171 \
  points,contours_points,no_box,contours_no_box,paper,contours "$@"
