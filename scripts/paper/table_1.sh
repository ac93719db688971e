#!/usr/bin/env bash
# The study: Jaccard index and Dice score over the slices with lung of all 20 volumes.
# usage: scripts/paper/table_1.sh [process_image.py options]
set -euo pipefail

exec "$(dirname "${BASH_SOURCE[0]}")/../process_images.sh" "$@"
