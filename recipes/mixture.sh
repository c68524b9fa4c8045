#!/usr/bin/env bash
# One set of weights for all four conditions: end to end on MNIST, tested on digits never seen. A training takes one
# core for MINUTES; how many steps these hold depends on the machine, and the rows say it. An interrupted call continues.
# Rows go to runs/mixture/table.csv; results/mixture has those of the report, and weights.
# Usage: MODELS="multi-stn-lstm dcn-lstm" SEEDS="0 1 2" MINUTES=140 recipes/mixture.sh [--digits-dir FOLDER]
set -euo pipefail
export OMP_NUM_THREADS=1
out=${OUT:-runs/mixture}
for seed in ${SEEDS:-0 1 2}; do
  for model in ${MODELS:-multi-stn-lstm lenet-lstm}; do
    run=$out/$model-seed-$seed
    if [ -e "$run/run.json" ]; then
      saccade train --resume --out "$run"
    else
      saccade train --model "$model" --trunk wide --digits mnist --batch-size 8 --minutes "${MINUTES:-140}" --seed "$seed" \
        --condition normal rotation scaling rotation_scaling rotation_scaling rotation_scaling --out "$run" "$@"
    fi
    saccade evaluate --model "$run" --num-clips "${NUM_CLIPS:-10000}" --no-without-attention \
      --out "$out/table.csv" "$@"
  done
done
