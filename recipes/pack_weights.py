"""Keep of a checkpoint what is needed to use it, with probabilities that mean what they say on clips like its own.

The optimiser's state goes. The logits are divided by one temperature, for which the binary cross entropy of validation
clips is least: a network trained for a few thousand steps is less sure than it is right. No verdict changes by it. On
digits that training knew nothing of, the network is surer than right afterwards.

Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.

Usage: python recipes/pack_weights.py RUN FILE.safetensors [--data-dir FOLDER]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from saccade import checkpoint
from saccade.train import TrainConfig

NUM_CLIPS, NUM_FRAMES = 500, 50


def pack(run: Path, target: Path, data_dir: Path | None) -> None:
    """Write the packed checkpoint, without the paths of the machine that it was trained on."""
    model, header = checkpoint.load(run)
    if header.data["labels"] != "digits":
        raise SystemExit(f"{run} has the labels {header.data['labels']!r}; a model with the labels 'digits' is needed")
    assert isinstance(model.head, nn.Linear)
    names = [name for name in header.training["config"] if name not in ("data_dir", "start_from")]
    config = {name: header.training["config"][name] for name in names}
    temperature = temperature_of(model, config, data_dir)
    with torch.no_grad():
        model.head.weight /= temperature
        model.head.bias /= temperature
    training = header.training | {"config": config, "temperature": temperature}
    checkpoint.save(target, model, replace(header, training=training))
    print(f"{target}: temperature {temperature:.3f}")


def temperature_of(model: nn.Module, config: dict, data_dir: Path | None) -> float:
    """Return the temperature for which the verdicts of validation clips at their last frame are most probable."""
    tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in config.items()}
    settings = TrainConfig(**tuples, data_dir=data_dir)
    (clips,) = settings.clips(settings.load_digits("validation")).parts
    clips = clips.with_motion(num_frames=NUM_FRAMES)
    batches = [clips.batch(part) for part in torch.arange(NUM_CLIPS).split(20)]
    with torch.inference_mode():
        logits = torch.cat([model(batch.frames)[:, -1] for batch in batches]).double()
    labels = torch.cat([batch.labels for batch in batches]).double()
    # A grid as fine as a hundredth part is finer than the clips can tell.
    candidates = torch.logspace(-1, 1, 463, base=10).tolist()
    return min(candidates, key=lambda t: F.binary_cross_entropy_with_logits(logits / t, labels).item())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--data-dir", type=Path)
    given = parser.parse_args()
    pack(given.run, given.target, given.data_dir)
