#!/usr/bin/env bash
# One set of weights for all four conditions: end to end on MNIST, tested on digits never seen. A training takes one
# core for MINUTES; how many steps these hold depends on the machine, and the rows say it. STEPS gives their number
# instead, so that other machines train for as long. JITTER changes digits of training at random. An interrupted call
# continues.
# Weights with their temperature go to runs/mixture, and rows to TABLE. PACKAGED=multi-stn-lstm puts its weights of seed 0
# into the package, with their card.
# Usage: MODELS="multi-stn-lstm dcn-lstm" SEEDS="0 1 2" MINUTES=110 recipes/mixture.sh [--digits-dir FOLDER]
set -euo pipefail
export OMP_NUM_THREADS=1
out=${OUT:-runs/mixture}
table=${TABLE:-$out/table.csv}
length=${STEPS:+--steps $STEPS}
length=${length:---minutes ${MINUTES:-110}}
for seed in ${SEEDS:-0 1 2}; do
  for model in ${MODELS:-multi-stn-lstm lenet-lstm}; do
    run=$out/$model-seed-$seed
    if [ -e "$run/checkpoint.safetensors" ]; then
      saccade train --resume --out "$run"
    else
      saccade train --model "$model" --trunk wide --digits mnist --batch-size 8 --short-fraction 0.75 \
        $length --jitter "${JITTER:-0}" --seed "$seed" \
        --condition normal rotation scaling rotation_scaling rotation_scaling rotation_scaling --out "$run" "$@"
    fi
    python recipes/pack_weights.py "$run" "$run.safetensors" "$@"
    saccade evaluate --model "$run.safetensors" --num-clips "${NUM_CLIPS:-10000}" --no-without-attention \
      --out "$table" "$@"
  done
done
if [ -n "${PACKAGED:-}" ]; then
  packed=src/saccade/weights/$PACKAGED.safetensors
  python recipes/pack_weights.py "$out/$PACKAGED-seed-0" "$packed" "$@"
  saccade evaluate --model "$packed" --num-clips 1000 --no-without-attention --precision float32 --out results/weights.csv "$@"
  # What the suite measures again.
  for digits in strokes uci; do
    saccade evaluate --model "$packed" --digits "$digits" --condition rotation_scaling --num-clips 300 \
      --no-without-attention --precision float32 --out results/weights.csv "$@"
  done
  python -m recipes.cards
fi
