#!/usr/bin/env bash
# The published protocol on MNIST in the readings that do not give the published figures: test clips on trajectories of
# their own, with the digit images of the training clips (shared) or others (disjoint), and the order of the pair hidden
# or visible. results/published-other-trajectories.csv joins the rows of the four tables.
# Usage: recipes/published-other-trajectories.sh [--digits-dir FOLDER]
set -euo pipefail
for instances in shared disjoint; do
  for order in hidden visible; do
    saccade reproduce --preset published --digits mnist --instances "$instances" --order "$order" --retrainings 300 \
      --out "runs/published-$instances-$order" "$@"
  done
done
