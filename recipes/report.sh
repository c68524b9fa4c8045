#!/usr/bin/env bash
# What docs/report.md says beside accuracy: where the glimpses look, and which clips are still wrong, with pictures of
# these. The weights are those that recipes/mixture.sh packs.
# Usage: recipes/report.sh [--digits-dir FOLDER]; MODEL names other weights than those of the package.
set -euo pipefail
model=${MODEL:-src/saccade/weights/multi-stn-lstm.safetensors}
rm -f results/mixture/attention.csv runs/remaining-errors/errors.csv
for condition in normal rotation scaling rotation_scaling; do
  saccade evaluate --model "$model" --condition "$condition" --num-clips 200 --no-without-attention \
    --attention results/mixture/attention.csv "$@"
done
python recipes/remaining_errors.py --model "$model" --split test --num-clips 2000 --out runs/remaining-errors "$@"
cp runs/remaining-errors/errors.csv results/mixture/errors.csv
