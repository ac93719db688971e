#!/usr/bin/env bash
# Sets up what the tests need and runs them.
# usage: scripts/test.sh [pytest arguments, paths from the project's root]
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

scripts/setup.sh requirements-dev.txt
find_python
exec "${python[@]}" -m pytest "$@"
