#!/usr/bin/env bash
# The slice whose numbers the authors publish: Jaccard 0.9837, Dice 0.9918.
# usage: scripts/paper/figure_3.sh [process_image.py options]
set -euo pipefail

exec "$(dirname "${BASH_SOURCE[0]}")/draw.sh" figure_3 coronacases_001 122 \
  paper "$@"
