#!/usr/bin/env bash
# MNIST, digits never seen in test, rotation and scaling together.
# Usage: recipes/stn-lstm-rotation_scaling.sh [--data-dir FOLDER]
set -euo pipefail
out=runs/stn-lstm-rotation_scaling
saccade train --model stn-lstm --condition rotation_scaling --digits mnist --steps 2000 --out "$out" "$@"
saccade evaluate --model "$out" --num-clips 2000 --out results/end_to_end.csv "$@"
