#!/usr/bin/env bash
# The same as download_model_checkpoints.sh. The original instructions use this name.
set -euo pipefail
exec "$(dirname "${BASH_SOURCE[0]}")/download_model_checkpoints.sh" "$@"
