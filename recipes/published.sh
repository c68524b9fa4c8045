#!/usr/bin/env bash
# The published protocol on MNIST, in the reading that fits the paper best: five epochs of single digits for each CNN,
# then 300 LSTMs a cell on its frozen features, 20 steps each; test clips show the digits of the training clips.
# Usage: recipes/published.sh [--digits-dir FOLDER] [--instances disjoint] [--order visible] [--stage1-minutes 10]
set -euo pipefail
saccade reproduce --preset published --digits mnist --retrainings 300 --out runs/published "$@"
