#!/usr/bin/env bash
# What docs/report.md says beside accuracy: where the glimpses look, and which clips are still wrong, with pictures of
# these in runs/report. The weights are those of the package, which PACKAGED=multi-stn-lstm recipes/mixture.sh puts there.
# Usage: recipes/report.sh [--digits-dir FOLDER]; MODEL names other weights.
set -euo pipefail
model=${MODEL:-src/saccade/weights/multi-stn-lstm.safetensors}
out=${OUT:-runs/report}
[ -e "$model" ] || { echo "$model is not there; MODEL names other weights" >&2; exit 2; }
rm -rf "$out"
mkdir -p "$out"
for condition in normal rotation scaling rotation_scaling; do
  saccade evaluate --model "$model" --condition "$condition" --num-clips 200 --no-without-attention \
    --attention "$out/attention.csv" "$@"
done
python recipes/remaining_errors.py --model "$model" --split test --num-clips 2000 --out "$out" "$@"
cp "$out/attention.csv" "$out/errors.csv" results/mixture
