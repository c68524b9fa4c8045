#!/usr/bin/env bash
# MNIST, digits never seen in test, rotation and scaling together. Usage: stn-lstm-rotation_scaling.sh [--data-dir FOLDER]
set -euo pipefail
saccade train --model stn-lstm --condition rotation_scaling --digits mnist --minutes MINUTES --out runs/stn-lstm-rotation_scaling "$@"
saccade evaluate --model runs/stn-lstm-rotation_scaling --num-clips 2000 --out results/end_to_end.csv "$@"
