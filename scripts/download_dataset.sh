#!/usr/bin/env bash
# Downloads the paper's 20 CT volumes and their lung masks (about 1 GB) into datasets/zenodo/, or its
# 138 chest X-rays and their lung masks into datasets/montgomery/.
# usage: scripts/download_dataset.sh [montgomery] [--mirror URL]
# Run it again to resume an interrupted download.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

dataset=zenodo
if [[ ${1:-} == montgomery ]]; then
  dataset=montgomery
  shift
fi
find_python
exec "$python" -m "sam_lungs.data.$dataset" "$@"
