#!/usr/bin/env bash
# The weights that come with the package: MNIST digits and digits drawn with strokes, one to five in a clip, turned and
# scaled, among pieces of others and noise. Labels: which digits are present. Tested on digits never seen: those two
# sources, and UCI's, which are not in the training.
# recipes/train_wide.py has the convolutions and the optimiser of the weights in the package.
# Usage: recipes/weights.sh [--digits-dir FOLDER]; RUNS names another folder than runs/weights. SEED=1 trains from other
# initial weights on other clips, tests on the same clips, adds the rows, and leaves the package's weights as they are.
set -euo pipefail
seed=${SEED:-0}
runs=${RUNS:-runs/weights}
packed=src/saccade/weights
if [ "$seed" != 0 ]; then
  runs=$runs-seed-$seed
  packed=$runs
fi
for model in ${MODELS:-stn-lstm dcn-lstm lenet-lstm}; do
  python recipes/train_wide.py --model "$model" --condition rotation_scaling --digits mnist+strokes --labels digits \
    --num-digits 1 5 --clutter 4 --noise 25 --steps 3000 --batch-size 16 \
    --seed "$seed" --out "$runs/$model" "$@"
  python recipes/pack_weights.py "$runs/$model" "$packed/$model.safetensors" "$@"
  for digits in mnist strokes uci; do
    saccade evaluate --model "$packed/$model.safetensors" --digits "$digits" --num-clips 1000 \
      --num-digits 2 --precision float32 --out results/weights.csv "$@"
  done
  # What the suite measures again.
  for digits in strokes uci; do
    saccade evaluate --model "$packed/$model.safetensors" --digits "$digits" --num-clips 300 \
      --num-digits 2 --no-without-attention --precision float32 --out results/weights.csv "$@"
  done
  saccade evaluate --model "$packed/$model.safetensors" --digits mnist --num-clips 1000 \
    --num-digits 1 5 --clutter 4 --noise 25 --precision float32 --out results/weights.csv "$@"
  # Where it looks beside where the digits are: two digits of MNIST, in each condition.
  for condition in normal rotation scaling rotation_scaling; do
    saccade evaluate --model "$packed/$model.safetensors" --digits mnist --condition "$condition" \
      --num-clips 100 --num-digits 2 --attention results/attention.csv "$@"
  done
done
python -m recipes.cards
