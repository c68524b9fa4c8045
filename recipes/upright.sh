#!/usr/bin/env bash
# Train upright, test turned: models that saw upright digits only, and how accurate they stay when digits are turned,
# scaled, faster, occluded, noisy, or lack frames; with --turns 8 also when verdicts are averaged over eight turned copies.
# Rows and page go to runs/upright/robustness; results/robustness has those of docs/results.md.
# Usage: MODELS="lenet-lstm multi-stn-lstm" MINUTES=7 recipes/upright.sh [--digits-dir FOLDER]
set -euo pipefail
export OMP_NUM_THREADS=1
out=${OUT:-runs/upright}
runs=()
for model in ${MODELS:-lenet-lstm multi-stn-lstm}; do
  runs+=("$out/$model")
  if [ -e "$out/$model/run.json" ]; then
    saccade train --resume --out "$out/$model"
  else
    saccade train --model "$model" --trunk wide --digits mnist --batch-size 8 --minutes "${MINUTES:-7}" --seed 0 \
      --condition normal --out "$out/$model" "$@"
  fi
done
saccade robustness --model "${runs[@]}" --num-clips "${NUM_CLIPS:-200}" --turns 8 --digits mnist --out "$out/robustness" "$@"
