#!/usr/bin/env bash
# Runs one small study with each of several Pythons, and compares the tables byte for byte.
# usage: scripts/compare_pythons.sh [PYTHON ...]   (those of python3.10 to python3.13 that are there)
# Each gets an environment of its own, of some gigabytes, in working_data/pythons/.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

pythons=("$@")
if [[ $# -eq 0 ]]; then
  for name in python3.10 python3.11 python3.12 python3.13; do
    ! "$name" -c 'import venv' 2>/dev/null || pythons+=("$name")
  done
fi

# The tables of a study, made by the Python of an environment in a folder.
run_study() {
  local python=$1 folder=$2 name
  "$python" -m sam_lungs.synthetic.phantom --output_folder "$folder/phantom" --cases 2 --slices 16 --overwrite
  for name in phantom_001 phantom_002; do
    images+=("$folder/phantom/CT/$name.nii.gz")
    masks+=("$folder/phantom/Lung_Mask/$name.nii.gz")
  done
  "$python" process_image.py -i "${images[@]}" -m "${masks[@]}" --model compact --device cpu \
    --prompts paper,contours_no_box --metrics nsd,hd95,volume_dice --empty_slices nearest \
    --output_folder "$folder/results" --overwrite
  "$python" join_results.py -r "$folder/results/paper"
}

status=0
for python in "${pythons[@]}"; do
  folder=working_data/pythons/${python##*/}
  [[ -x $folder/venv/bin/python ]] || "$python" -m venv "$folder/venv"
  "$folder/venv/bin/python" -m pip install --quiet --disable-pip-version-check -r requirements.txt
  images=() masks=()
  run_study "$folder/venv/bin/python" "$folder" >"$folder/log" 2>&1 ||
    fail "$python does not finish the study: $(tail -1 "$folder/log")"
  tables=$(cd "$folder" && find results -name '*.csv' | sort | xargs cat | sha256sum | cut -d' ' -f1)
  versions=$("$folder/venv/bin/python" -c 'import sys, numpy, pandas, torch
print(f"Python {sys.version.split()[0]}, torch {torch.__version__}, numpy {numpy.__version__},"
      f" pandas {pandas.__version__}")')
  first=${first:-$tables}
  alike="same tables"
  if [[ $tables != "$first" ]]; then
    alike="OTHER TABLES" status=1
  fi
  echo "$python: $alike ($versions)"
done
exit "$status"
