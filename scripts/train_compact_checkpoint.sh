#!/usr/bin/env bash
# Trains the compact SAM into checkpoints/sam_compact.pth. Run it again to resume.
# usage: scripts/train_compact_checkpoint.sh [options of sam_lungs.synthetic.training]
# A new checkpoint is refused until sam_lungs/segmenters/checkpoints.py has its size and SHA-256.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

find_python
# glibc settings: keep freed memory, because every step needs it again.
export MALLOC_MMAP_THRESHOLD_=1073741824 MALLOC_TRIM_THRESHOLD_=8589934592
exec "$python" -m sam_lungs.synthetic.training "$@"
