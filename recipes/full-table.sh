#!/usr/bin/env bash
# Three models x four conditions end to end on MNIST, a model for each condition, tested on digits never seen.
# results/full-table was made with these sizes on one H200, as twelve calls of `saccade reproduce` with the code of
# commit 1f5c264; recipes/train_wide.py has its convolutions and its optimiser.
# Usage: recipes/full-table.sh [--digits-dir FOLDER]; rows go to runs/full-table/table.csv
set -euo pipefail
out=runs/full-table
for model in lenet-lstm stn-lstm dcn-lstm; do
  for condition in normal rotation scaling rotation_scaling; do
    run=$out/$model-$condition
    python recipes/train_wide.py --model "$model" --condition "$condition" --digits mnist --steps 1600 --batch-size 32 \
      --out "$run" "$@"
    saccade evaluate --model "$run" --num-clips 2000 --out "$out/table.csv" "$@"
  done
done
