#!/usr/bin/env bash
# Makes or updates the project's Python: conda environment `sam` where there is conda, else .venv.
# usage: scripts/setup.sh [requirements file in the project's root, default requirements.txt]
# With PYTHON set, that Python is used as it is and nothing is installed.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

requirements=${1:-requirements.txt}
[[ -f $requirements ]] || fail "$requirements: no such file in $PWD"

if [[ -n ${PYTHON:-} ]]; then
  echo "PYTHON is set: using $PYTHON as it is"
  exit
fi

made_from=("$requirements")
while read -r included; do
  made_from+=("$included")
done < <(sed -n 's/^-r *//p' "$requirements")

if has_conda; then
  environment="conda environment sam"
  python=("${conda_python[@]}")
  made_from+=(environment.yml)
else
  environment=.venv
  python=("$venv_python")
fi

# The folder inside the environment that holds a copy of each file the environment was made from.
stamp_folder() {
  "${python[@]}" -c 'import sysconfig; print(sysconfig.get_path("purelib") + "/made_from")'
}

is_up_to_date() {
  local folder file
  folder=$(stamp_folder 2>/dev/null) || return 1
  for file in "${made_from[@]}"; do
    cmp -s "$file" "$folder/${file##*/}" || return 1
  done
}

make_conda_environment() {
  local action=create
  if has_conda_environment; then
    action=update
  fi
  conda env "$action" --name sam --file environment.yml
}

make_venv() {
  python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null ||
    fail "python3 is missing or older than 3.10: install Python 3.10 or newer"
  python3 -c 'import ensurepip, venv' 2>/dev/null ||
    fail "python3 has no venv module: install it (on Debian and Ubuntu: sudo apt install python3-venv)"
  # Without a working pip it is half made, or made by a Python that has since been replaced.
  "$venv_python" -m pip --version >/dev/null 2>&1 || python3 -m venv --clear .venv
}

if is_up_to_date; then
  echo "$environment is up to date"
  exit
fi

if has_conda; then
  make_conda_environment
else
  make_venv
fi
stamps=$(stamp_folder)
rm -rf "$stamps"
"${python[@]}" -m pip install --disable-pip-version-check --requirement "$requirements"
mkdir "$stamps"
cp "${made_from[@]}" "$stamps"
echo "$environment is ready"
