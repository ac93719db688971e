#!/usr/bin/env bash
# Installs the test requirements and runs the tests in parallel.
# usage: scripts/test.sh [pytest arguments, paths from the project's root]
#   -n 0    one test at a time, as a debugger needs it
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

scripts/setup.sh requirements-dev.txt
find_python
# One thread each, so that the tests do not compete for the cores.
export OMP_NUM_THREADS=1
exec "$python" -m pytest -n auto --maxprocesses 8 --dist worksteal "$@"
