"""Train a small model for a moment, then watch it make up its mind frame by frame.

python examples/classify_moving_digits.py [STEPS]
"""

import sys
import tempfile
from pathlib import Path

import torch

from saccade import checkpoint
from saccade.data import Motion, MovingDigits, digits
from saccade.train import TrainConfig, train

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100
with tempfile.TemporaryDirectory() as folder:
    config = TrainConfig(model="lenet-lstm", condition="normal", digits="uci", steps=steps, num_frames=8)
    path = train(config, Path(folder), progress=lambda row: print(f"\rstep {row['step']}/{steps}", end=""))
    model, _ = checkpoint.load(path)

clips = MovingDigits(digits.load("uci", "test"), Motion("normal"), num_clips=55)
batch = clips.batch(torch.tensor([18]))
with torch.no_grad():
    probabilities = model(batch.frames).softmax(-1)[0]
shown = clips.labels.names[int(batch.labels[0])]
print(f"\nthe clip shows {shown}")
for frame in (0, 4, 9, 24, 49):
    value, index = probabilities[frame].max(-1)
    print(f"after {frame + 1:2} frames: {clips.labels.names[int(index)]} with probability {value:.2f}")
