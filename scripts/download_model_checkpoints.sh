#!/usr/bin/env bash
# Downloads weights of models into checkpoints/ and verifies them: vit_l (1.2 GB) by default.
# usage: scripts/download_model_checkpoints.sh [vit_b | sam2.1_hiera_tiny | medsam ...] [--mirror URL]
# --help lists all models.
# Run it again to resume an interrupted download.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

find_python
exec "$python" -m sam_lungs.segmenters.checkpoints "$@"
