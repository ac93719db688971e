#!/usr/bin/env bash
# Runs the whole study on two synthetic patients with the compact model, which comes with the code:
# no dataset and no weights to download, and no network after setup. Results: working_data/demo/.
# usage: scripts/demo.sh
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

scripts/setup.sh
find_python
exec "$python" scripts/demo.py
