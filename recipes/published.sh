#!/usr/bin/env bash
# The published protocol on MNIST, tested on the training clips, which is the reading that gives the published figures:
# a CNN on single digits, then LSTMs on its frozen features, 20 steps each. Their mean is a cell of the table.
# The first command is that of results/published, the second that of results/published-stn. The second cuts the CNN's
# training after 6.5 minutes: how many of the 7,815 steps these hold depends on the machine, and the rows say it.
# Usage: recipes/published.sh [--digits-dir FOLDER]
set -euo pipefail
saccade reproduce --preset published --digits mnist --models lenet-lstm --retrainings 300 --out runs/published "$@"
saccade reproduce --preset published --digits mnist --models stn-lstm --retrainings 100 --stage1-minutes 6.5 \
  --out runs/published-stn "$@"
