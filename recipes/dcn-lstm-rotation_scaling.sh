#!/usr/bin/env bash
# MNIST, digits never seen in test, rotation and scaling together. Usage: dcn-lstm-rotation_scaling.sh [--data-dir FOLDER]
set -euo pipefail
saccade train --model dcn-lstm --condition rotation_scaling --digits mnist --minutes MINUTES --out runs/dcn-lstm-rotation_scaling "$@"
saccade evaluate --model runs/dcn-lstm-rotation_scaling --num-clips 2000 --out results/end_to_end.csv "$@"
