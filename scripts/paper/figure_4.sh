#!/usr/bin/env bash
# The negative point moved down, row by row.
# usage: scripts/paper/figure_4.sh [process_image.py options]
set -euo pipefail

exec "$(dirname "${BASH_SOURCE[0]}")/draw.sh" figure_4 coronacases_001 177 \
  no_box,paper,negative_15,negative_30,negative_45,negative_45_no_box,negative_60 "$@"
