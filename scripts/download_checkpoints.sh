#!/usr/bin/env bash
# The name that the original instructions use for download_model_checkpoints.sh.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/download_model_checkpoints.sh" "$@"
