#!/usr/bin/env bash
# Creates or updates the project's Python environment: conda environment `sam` where conda is
# installed, else .venv. Does nothing when the environment is up to date.
# usage: scripts/setup.sh [--cpu] [--workflow] [requirements file in the project's root]
#   --cpu              install PyTorch without GPU support, which is much smaller
#   --workflow         Snakemake, which docs/many_machines.md needs, in .venv-workflow
#   requirements file  default requirements.txt; requirements-dev.txt adds what the tests need
# With PYTHON set, that Python is used as it is and nothing is installed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

requirements=requirements.txt
venv=.venv
for argument in "$@"; do
  case $argument in
    # An environment variable, because `conda env create` runs pip too.
    --cpu)
      export PIP_EXTRA_INDEX_URL="${PIP_EXTRA_INDEX_URL:-} https://download.pytorch.org/whl/cpu"
      ;;
    --workflow)
      requirements=requirements-workflow.txt
      venv=.venv-workflow
      ;;
    -*) fail "unknown option $argument; see --help" ;;
    *) requirements=$argument ;;
  esac
done
[[ -f $requirements ]] || fail "$requirements: no such file in $PWD"

if [[ -n ${PYTHON:-} ]]; then
  echo "PYTHON is set: using $PYTHON as it is"
  exit
fi

made_from=("$requirements")
while read -r included; do
  made_from+=("$included")
done < <(sed -n 's/^-r *//p' "$requirements")

environment=$venv
python=$venv/bin/python
if [[ $venv == .venv ]] && command -v conda >/dev/null; then
  environment="conda environment sam"
  made_from+=(environment.yml)
  python=$(conda_python)
fi

# Prints the folder in the environment with copies of the files that the environment was made from.
stamp_folder() {
  "$python" -c 'import sysconfig; print(sysconfig.get_path("purelib") + "/made_from")'
}

is_up_to_date() {
  local folder file
  folder=$(stamp_folder 2>/dev/null) || return 1
  for file in "${made_from[@]}"; do
    cmp -s "$file" "$folder/${file##*/}" || return 1
  done
}

is_new_enough() {
  "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

# Creates the conda environment, or updates it, also to the Python of environment.yml.
make_conda_environment() {
  local action=create
  [[ -z $(conda_python) ]] || action=update
  conda env "$action" --name sam --file environment.yml ||
    fail "conda cannot $action the environment sam; if it is an old one," \
      "run: conda env remove --name sam; scripts/setup.sh"
  python=$(conda_python)
}

make_venv() {
  # Keep an environment with a working pip. Without it, creation was interrupted or Python is gone.
  if is_new_enough "$python" && "$python" -m pip --version >/dev/null 2>&1; then
    return
  fi
  local name
  for name in python3 python3.13 python3.12 python3.11 "$(conda_python)" ""; do
    ! is_new_enough "$name" || break
  done
  [[ -n $name ]] || fail "Python 3.11 or newer is needed: install it, or conda"
  "$name" -c 'import ensurepip, venv' 2>/dev/null ||
    fail "$name has no venv module: install it (on Debian and Ubuntu: sudo apt install $name-venv)"
  "$name" -m venv --clear "$venv"
}

if is_up_to_date; then
  echo "$environment is up to date"
  exit
fi

if [[ $environment == conda* ]]; then
  make_conda_environment
else
  make_venv
fi
stamps=$(stamp_folder)
rm -rf "$stamps"
"$python" -m pip install --disable-pip-version-check --requirement "$requirements"
mkdir "$stamps"
cp "${made_from[@]}" "$stamps"
echo "$environment is ready"
