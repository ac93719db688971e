#!/usr/bin/env bash
# Downloads official SAM weights into checkpoints/ and verifies them: vit_l (1.2 GB) by default.
# usage: scripts/download_model_checkpoints.sh [vit_b | vit_l | vit_h ...] [--mirror URL]
# Run it again to resume an interrupted download.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

find_python
exec "$python" -m sam_lungs.segmenters.checkpoints "$@"
