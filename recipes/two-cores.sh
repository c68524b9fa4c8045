#!/usr/bin/env bash
# Four trainings end to end on MNIST, tested on digits never seen. results/end_to_end.csv was made so with the code of
# commit 1f5c264, each training with one thread on a core that it shared; recipes/train_wide.py has its convolutions and
# its optimiser.
# Usage: recipes/two-cores.sh [--digits-dir FOLDER]; rows go to runs/two-cores/table.csv
set -euo pipefail
export OMP_NUM_THREADS=1
out=runs/two-cores

cell() { # MODEL CONDITION STEPS [--digits-dir FOLDER]
  local run=$out/$1-$2
  python recipes/train_wide.py --model "$1" --condition "$2" --digits mnist --steps "$3" --batch-size 32 \
    --out "$run" "${@:4}"
  saccade evaluate --model "$run" --num-clips 2000 --out "$out/table.csv" "${@:4}"
}

cell lenet-lstm normal 4000 "$@"
cell lenet-lstm rotation_scaling 4000 "$@"
cell stn-lstm rotation_scaling 2000 "$@"
cell dcn-lstm rotation_scaling 1600 "$@"
