#!/usr/bin/env bash
# Runs one small study with each of several Pythons and compares the tables byte for byte.
# usage: scripts/compare_pythons.sh [PYTHON ...]   (default: every installed python3.11 to python3.13)
# Each Python gets its own environment, several gigabytes, in working_data/pythons/.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

find_python
exec "$python" scripts/compare_pythons.py "$@"
