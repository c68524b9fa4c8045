#!/usr/bin/env bash
# The table of the README: three models x four conditions, MNIST, digits never seen in test, 1600 steps each, one seed.
# On one H200 shared by twelve trainings it took four minutes; on two cores it takes about three hours.
# Usage: recipes/full-table.sh [--data-dir FOLDER]
set -euo pipefail
saccade reproduce --preset full --digits mnist --seeds 1 --steps 1600 --out runs/full-table "$@"
