#!/usr/bin/env bash
# Checks in minutes whether this machine gives the paper's numbers: downloads the dataset and the
# ViT-L weights if they are missing (2.3 GB), segments a dozen of the 3,520 slices, and prints the
# published Jaccard index and Dice score of each, the ones here, and a verdict.
# usage: scripts/check_reproduction.sh [--checkpoint FILE]
# Exit status: 0 if all slices are reproduced, else 1.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

find_python
exec "$python" -m sam_lungs.summary.reproduction "$@"
