#!/usr/bin/env bash
# Another name of download_model_checkpoints.sh, from the original instructions.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/download_model_checkpoints.sh" "$@"
