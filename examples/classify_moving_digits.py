"""Train a small model briefly, then print its predictions at several frames of a clip.

python examples/classify_moving_digits.py [STEPS]
"""

import sys
import tempfile
from pathlib import Path

import torch

from saccade import checkpoint
from saccade.data.digits import DigitsConfig
from saccade.train import TrainConfig, train

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 100
learned = DigitsConfig("uci", condition=("normal",), num_frames=8, frames_per_setting=2)
with tempfile.TemporaryDirectory() as folder:
    config = TrainConfig(model="lenet-lstm", steps=steps)
    path = train(config, learned, Path(folder), progress=lambda row: print(f"\rstep {row['step']}/{steps}", end=""))
    model, _ = checkpoint.load(path)

clips = DigitsConfig("uci", condition=("normal",)).clips("test")
batch = clips.batch(torch.tensor([18]))
with torch.no_grad():
    verdicts = clips.labels.verdicts(model(batch.frames)[0])
print(f"\nthe clip shows {clips.labels.names[int(batch.targets[0])]}")
for frame in (0, 4, 9, 24, 49):
    print(f"after {frame + 1:2} frames: {verdicts[frame].name} with probability {verdicts[frame].probability:.2f}")
