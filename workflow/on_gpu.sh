#!/usr/bin/env bash
# Runs a command on one GPU that no other job on this machine uses, through CUDA_VISIBLE_DEVICES.
# usage: workflow/on_gpu.sh COMMAND [ARGUMENT ...]
# The GPUs are those of CUDA_VISIBLE_DEVICES, or all. Where there is one or none, as in a job of
# SLURM, the command runs as it is. Where all are in use it waits.
set -euo pipefail

gpus=()
if [[ -n ${CUDA_VISIBLE_DEVICES+set} ]]; then
  IFS=, read -ra gpus <<<"$CUDA_VISIBLE_DEVICES"
elif command -v nvidia-smi >/dev/null; then
  # Without its driver nvidia-smi prints an error in their place.
  mapfile -t gpus < <(nvidia-smi --query-gpu=uuid --format=csv,noheader | grep ^GPU-)
fi
((${#gpus[@]} > 1)) || exec "$@"

locks=${TMPDIR:-/tmp}/sam_lungs_gpus_$UID
mkdir -p "$locks"
while true; do
  for gpu in "${gpus[@]}"; do
    exec {lock}>"$locks/${gpu//\//_}"  # a part of a GPU can be named MIG-GPU-.../1/0
    if flock --nonblock "$lock"; then
      # The command inherits the lock, which ends with the command, also after a kill.
      CUDA_VISIBLE_DEVICES=$gpu exec "$@"
    fi
    exec {lock}>&-
  done
  sleep 1
done
