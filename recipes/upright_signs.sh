#!/usr/bin/env bash
# Train upright, test turned, on real clips: signs of a sign language by ten signers, or any folder of clips in groups.
# The head that is fitted at once; the same trunk trained by steps without changed views, with views turned by up to ten
# degrees, and by any angle; and with each kind of attention. Then accuracy by angle, alone and as the mean of four
# turned copies. Rows and page go to runs/upright-signs/robustness.
# Usage: recipes/upright_signs.sh --data FOLDER --group '_([0-9]+)_'; MINUTES and NUM_CLIPS change the sizes.
set -euo pipefail
out=${OUT:-runs/upright-signs}
trunk="--trunk efficientnet-lite0 --temporal mean --minutes ${MINUTES:-4}"
declare -A options=(
  [memory]=""
  [plain]="$trunk --attention none --no-augment"
  [views]="$trunk --attention none"
  [turned]="$trunk --attention none --max-angle-deg 180"
  [dcn]="$trunk --attention dcn --no-augment"
  [stn]="$trunk --attention stn --no-augment"
)
runs=()
for name in ${NAMES:-memory plain views turned dcn stn}; do
  run=$out/$name
  runs+=("$run")
  if [ -e "$run/checkpoint.safetensors" ] && [ "$name" = memory ]; then
    continue
  elif [ -e "$run/run.json" ]; then
    saccade train --resume --out "$run"
  else
    # shellcheck disable=SC2086 # options are several words
    saccade train "$@" --seed 0 --out "$run" ${options[$name]}
  fi
done
saccade robustness --model "${runs[@]}" --changes turn --turns 4 --num-clips "${NUM_CLIPS:-60}" --out "$out/robustness"
