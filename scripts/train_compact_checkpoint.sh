#!/usr/bin/env bash
# Trains the compact SAM anew into checkpoints/sam_compact.pth; run it again to go on where it was.
# usage: scripts/train_compact_checkpoint.sh [sam_lungs.training options]
# A new checkpoint is refused until its size and SHA-256 are put into sam_lungs/segmenters/checkpoints.py.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"
find_python

# With glibc: keep memory instead of giving it back, and faulting it in again, at every step.
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=8589934592
exec "${python[@]}" -m sam_lungs.synthetic.training "$@"
