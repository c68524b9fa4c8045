"""Train on moving digits with the convolutions and the optimiser of the first results: wide, and AdamW for all weights.

Usage: python recipes/train_wide.py --model dcn-lstm --condition rotation_scaling --steps 1600 --out runs/wide, with
further options of `saccade train`
"""

from dataclasses import replace
from pathlib import Path

import tyro

from saccade import console
from saccade.data.digits import TRAINING, DigitsConfig
from saccade.train import TrainConfig, train


def run(config: TrainConfig, out: Path, digits: DigitsConfig = TRAINING) -> None:
    """Train a model, and write it to a run folder."""
    with console.training_bar(config.model) as progress:
        train(replace(config, trunk="wide", muon_rate=0.0), digits, out, progress=progress)


if __name__ == "__main__":
    tyro.cli(run, config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff))
