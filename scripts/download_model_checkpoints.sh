#!/usr/bin/env bash
# Downloads the official SAM weights into checkpoints/ and verifies them.
# usage: scripts/download_model_checkpoints.sh [vit_b | vit_l | vit_h ...] [--mirror URL]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

find_python
exec "${python[@]}" -m sam_lungs.segmenters.checkpoints "$@"
