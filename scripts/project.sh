#!/usr/bin/env bash
# The other scripts source this file. It answers --help, changes to the project's root, and defines
# functions that find the project's Python.
# shellcheck disable=SC2034  # `python` is for the scripts that source this file
set -euo pipefail

fail() {
  echo "error: $*" >&2
  exit 1
}

# --help prints the comment at the top of the script.
for argument in "$@"; do
  if [[ $argument == --help || $argument == -h ]]; then
    awk 'NR > 1 && !/^#/ { exit } NR > 1 && !/shellcheck/ { sub(/^# ?/, ""); print }' "$0"
    exit
  fi
done

# Prints the path of Python in the conda environment `sam`, or nothing without this environment.
conda_python() {
  command -v conda >/dev/null || return 0
  conda env list | sed -n 's|^sam[[:space:]][*+[:space:]]*\(.*\)|\1/bin/python|p'
}

# Sets `python` to the project's Python. The scripts `exec` it, so that signals reach it.
find_python() {
  if [[ -n ${PYTHON:-} ]]; then
    command -v "$PYTHON" >/dev/null || fail "PYTHON is set to $PYTHON, which cannot be run"
    python=$PYTHON
    return
  fi
  for python in "$(conda_python)" .venv/bin/python; do
    [[ ! -x $python ]] || return 0
  done
  fail "the project has no Python environment yet: run scripts/setup.sh"
}

# A relative PYTHON is relative to the caller's folder.
if [[ ${PYTHON:-} == [!/]*/* ]]; then
  PYTHON=$PWD/$PYTHON
fi

CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
