#!/usr/bin/env bash
# Trains the compact SAM anew into checkpoints/sam_compact.pth; run it again to go on after a stop.
# usage: scripts/train_compact_checkpoint.sh [sam_lungs.training options]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"
find_python

# Memory that is kept and not given back after every step halves a step's time with glibc.
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=8589934592
exec "${python[@]}" -m sam_lungs.training "$@"
