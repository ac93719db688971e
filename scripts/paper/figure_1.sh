#!/usr/bin/env bash
# The method on one slice: the image, the true masks, the paper's prompts and SAM's answer.
# usage: scripts/paper/figure_1.sh [process_image.py options]
set -euo pipefail

exec "$(dirname "${BASH_SOURCE[0]}")/draw.sh" figure_1 coronacases_001 98 \
  paper "$@"
