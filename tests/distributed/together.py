"""Fifty steps of a small model in double precision; torchrun starts this file in several processes.

Usage: torchrun --nproc-per-node NUM together.py FILE [fail], or python together.py FILE; with `fail` an error ends it
"""

import json
import sys
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from saccade import checkpoint, distributed
from saccade.clips import ClipBatch, FrameFormat, padded
from saccade.errors import DataError
from saccade.labels import Labels
from saccade.train import loop, shares
from saccade.train.end_to_end import objective
from saccade.train.muon import Muon
from saccade.train.optimizer import Optimizers
from saccade.train.trainer import Trainer

BATCH_SIZE, NUM_STEPS = 7, 50
LABELS = Labels(("a", "b", "c"))


class Small(nn.Module):
    """A convolution, batch normalisation and a dense layer, by frame."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU())
        self.second = nn.Conv2d(6, 8, 3, bias=False)  # a bias before the norm would be pure rounding
        self.norm, self.head = nn.BatchNorm2d(8), nn.Linear(8, 3)

    def forward(self, clips, lengths=None):
        maps = self.norm(self.second(self.layers(clips.flatten(0, 1)))).relu()
        return self.head(maps.mean((2, 3))).view(*clips.shape[:2], 3)


@dataclass(frozen=True)
class Batches:
    """Clips of two to four frames, in batches that are padded."""

    part: tuple[int, int] = (0, 1)

    def __call__(self, step, num_steps):
        number, num = self.part
        own = range(BATCH_SIZE * number // num, BATCH_SIZE * (number + 1) // num)
        clips, targets = [], []
        for clip in own:
            generator = torch.Generator().manual_seed(1000 * step + clip)
            target = int(torch.randint(3, (), generator=generator))
            noise = torch.randn(2 + (step + clip) % 3, 1, 10, 10, generator=generator, dtype=torch.float64)
            clips.append(noise + target)
            targets.append(target)
        frames, lengths = padded(clips)
        return ClipBatch(frames, torch.tensor(targets), lengths)

    def shard(self, number, num):
        return replace(self, part=(number, num))

    def to(self, device):
        return self


def main(path, *fail):
    torch.set_num_threads(1)
    told, first = {}, False
    with suppress(DataError), distributed.joined():
        first = distributed.is_first()
        told = trained(NUM_STEPS, *fail)
    if first:
        Path(path).write_text(json.dumps(told | {"threads_left": workers()}), encoding="utf-8")


def trained(num_steps, fail=None):
    torch.manual_seed(distributed.rank())  # the processes begin with the weights of the first
    model = Small().double()
    matrices = [p for p in model.parameters() if p.dim() > 1]
    rest = [p for p in model.parameters() if p.dim() == 1]
    parts = Optimizers([torch.optim.AdamW(rest, lr=0.01), Muon(matrices, lr=0.02)])
    header = checkpoint.Header("small", {}, LABELS, FrameFormat(1))
    trainer = Trainer(model, parts, Batches(), objective(LABELS), header, num_steps=num_steps)
    shares.divide(trainer, BATCH_SIZE)
    rows = [loop.advance(trainer) for _ in range(num_steps)]
    if fail:
        with distributed.failing_together():
            raise DataError("a clip cannot be read")
    statistics = torch.cat([value.flatten() for value in model.buffers()]).tolist()
    told = {name: [row[name] for row in rows] for name in ("loss", "accuracy", "gradient_norm")}
    return told | {"statistics": statistics, "shares": distributed.gathered(trainer.batches(0, 1).frames.shape[0])}


def workers():
    """Return the threads of this process that run operations of several processes."""
    names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    return sorted(name for name in names if "gloo" in name)


if __name__ == "__main__":
    main(*sys.argv[1:])
