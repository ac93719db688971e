#!/usr/bin/env bash
# Runs the study: segments the volumes of datasets/paper.yml, joins their results, and writes the
# report. To process other volumes, edit datasets/paper.csv or give --cases.
# usage: scripts/process_images.sh [process_image.py options, see docs/options.md]
#   --dry_run           check every input file first, and estimate the time
#   --cases NAME,NAME   process only these, such as image_coronacases_001
# Results: working_data/results/. Run the same command again to resume an interrupted run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

find_python
exec "$python" process_image.py \
  --dataset datasets/paper.yml --output_folder working_data/results --report "$@"
