#!/usr/bin/env bash
# Runs the study on the paper's chest X-rays, those of datasets/montgomery.yml: segments them, joins
# their results, and writes the report.
# usage: scripts/process_montgomery.sh [process_image.py options, see docs/options.md]
#   --dry_run           check every input file first, and estimate the time
#   --cases NAME,NAME   process only these, such as MCUCXR_0001_0
# Results: working_data/montgomery/results/. Run the same command again to resume an interrupted run.
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/project.sh"

find_python
exec "$python" process_image.py \
  --dataset datasets/montgomery.yml --output_folder working_data/montgomery/results --report "$@"
