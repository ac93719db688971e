#!/usr/bin/env bash
# The effect of each prompt: points, points moved inside, the negative point, the box.
# usage: scripts/paper/figure_2.sh [process_image.py options]
set -euo pipefail

exec "$(dirname "${BASH_SOURCE[0]}")/draw.sh" figure_2 coronacases_001 85 \
  centroid_points,points,no_box,paper "$@"
