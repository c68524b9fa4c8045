#!/usr/bin/env bash
# MNIST, digits never seen in test, rotation and scaling together.
# The trunk and the optimiser of version 0.1, which the rows in results/end_to_end.csv are of.
# Usage: recipes/dcn-lstm-rotation_scaling.sh [--digits-dir FOLDER]
set -euo pipefail
out=runs/dcn-lstm-rotation_scaling
saccade train --model dcn-lstm --condition rotation_scaling --digits mnist --steps 1600 --batch-size 32 \
  --trunk wide --muon-rate 0 --out "$out" "$@"
saccade evaluate --model "$out" --num-clips 2000 --out results/end_to_end.csv "$@"
