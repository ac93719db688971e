#!/usr/bin/env bash
# Sourced by the other scripts: goes to the project's root and tells how the project's Python is run.
# shellcheck disable=SC2034  # its variables are for the scripts that source it
set -euo pipefail

conda_python=(conda run -n sam --no-capture-output python)
venv_python=.venv/bin/python

fail() {
  echo "error: $*" >&2
  exit 1
}

has_conda() { command -v conda >/dev/null; }

has_conda_environment() {
  # No `grep -q`: leaving early, it would break conda's pipe and so the pipeline.
  has_conda && conda env list | grep '^sam[[:space:]]' >/dev/null
}

# Sets the array `python` to the command that runs the project's Python.
find_python() {
  if [[ -n ${PYTHON:-} ]]; then
    command -v "$PYTHON" >/dev/null || fail "PYTHON is set to $PYTHON, which cannot be run"
    python=("$PYTHON")
  elif has_conda_environment; then
    python=("${conda_python[@]}")
  elif [[ -x $venv_python ]]; then
    python=("$venv_python")
  else
    fail "the project has no Python environment yet: run scripts/setup.sh"
  fi
}

# Runs a command that stops kindly when this script is asked to: bash alone would end on SIGTERM and
# leave it running. Leaves with 130 after Ctrl-C and 143 after SIGTERM.
kindly() {
  local child= status=0
  # A second signal reaches it too, and ends it at once.
  trap 'trap "kill -TERM \$child; exit 130" INT TERM; kill -TERM $child; wait $child || exit 130' INT
  trap 'trap "kill -TERM \$child; exit 143" INT TERM; kill -TERM $child; wait $child || exit 143' TERM
  # In the background, because bash answers no signal while it waits for the foreground.
  "$@" &
  child=$!
  wait "$child" || status=$?
  trap - INT TERM
  return "$status"
}

# A relative PYTHON is meant from where the caller stands.
if [[ ${PYTHON:-} == [!/]*/* ]]; then
  PYTHON=$PWD/$PYTHON
fi

CDPATH='' cd -- "$(dirname -- "${BASH_SOURCE[0]}")/.."
