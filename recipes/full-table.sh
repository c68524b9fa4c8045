#!/usr/bin/env bash
# Three models x four conditions, MNIST, digits never seen in test, 1600 steps each, one seed, a model a condition.
# results/full-table was made so by version 0.1 (its trunk is `wide`, its optimiser AdamW) on one H200.
# Usage: recipes/full-table.sh [--digits-dir FOLDER]
set -euo pipefail
saccade reproduce --preset full --trained-on condition --digits mnist --seeds 1 --steps 1600 --out runs/full-table "$@"
