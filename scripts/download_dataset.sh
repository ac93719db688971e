#!/usr/bin/env bash
# Downloads the study's 20 CT volumes and their lung masks (about 1 GB) into datasets/zenodo/.
# usage: scripts/download_dataset.sh [--mirror URL]
# Run it again to resume an interrupted download.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

find_python
exec "$python" -m sam_lungs.data.zenodo "$@"
