#!/usr/bin/env bash
# MNIST, digits never seen in test, neither rotation nor scaling.
# Usage: recipes/lenet-lstm-normal.sh [--data-dir FOLDER]
set -euo pipefail
out=runs/lenet-lstm-normal
saccade train --model lenet-lstm --condition normal --digits mnist --steps 4000 --out "$out" "$@"
saccade evaluate --model "$out" --num-clips 2000 --out results/end_to_end.csv "$@"
