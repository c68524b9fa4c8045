"""Keep of a checkpoint what is needed to use it, with probabilities that mean what they say on clips like its own.

The optimiser's state goes. The logits are divided by one temperature, for which the cross entropy of validation clips
is least: a network that was trained for a few thousand steps is less sure than it is right, and one that remembers its
training clips is surer. No verdict changes by it. On digits that training knew nothing of, the network is surer than
right afterwards.

Source: Guo et al., "On Calibration of Modern Neural Networks", 2017.

Usage: python recipes/pack_weights.py RUN FILE.safetensors [--digits-dir FOLDER]
"""

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional as F

from saccade import checkpoint
from saccade.data.digits import DigitsConfig
from saccade.models import VideoClassifier

# As many clips of each condition.
NUM_CLIPS, NUM_FRAMES = 500, 50


def pack(run: Path, target: Path, digits_dir: Path | None) -> None:
    """Write the packed checkpoint, without the paths of the machine that it was trained on."""
    model, header = checkpoint.load(run)
    learned = header.data_config()
    if not isinstance(model, VideoClassifier) or not isinstance(learned, DigitsConfig):
        raise SystemExit(f"{run} is a {header.kind} of {header.facts.get('data')}; a model of moving digits is needed")
    learned = replace(learned, digits_dir=digits_dir)
    temperature = temperature_of(model, replace(learned, clips_seed=header.training["config"]["seed"]))
    with torch.no_grad():
        # The logits of every head here are sums of what its linear layers give.
        for layer in (part for part in model.head.modules() if isinstance(part, nn.Linear)):
            layer.weight.div_(temperature)
            layer.bias.div_(temperature)
    config = {name: value for name, value in header.training["config"].items() if name != "start_from"}
    training = header.training | {"config": config, "temperature": temperature}
    data = header.data | {"config": replace(learned, digits_dir=None).as_json()}
    checkpoint.save(target, model, replace(header, data=data, training=training))
    print(f"{target}: temperature {temperature:.3f}")


def temperature_of(model: VideoClassifier, learned: DigitsConfig) -> float:
    """Return the temperature for which the verdicts of validation clips at their last frame are most probable."""
    logits, targets = [], []
    for part in replace(learned, num_frames=NUM_FRAMES).parts():
        clips = part.clips("validation")
        for indices in torch.arange(NUM_CLIPS).split(20):
            batch = clips.batch(indices)
            with torch.inference_mode():
                logits.append(model(batch.frames)[:, -1].double())
            targets.append(batch.targets if model.labels.exclusive else batch.targets.double())
    found, wanted = torch.cat(logits), torch.cat(targets)
    # A grid as fine as a hundredth part is finer than the clips can tell.
    candidates: list[float] = torch.logspace(-1, 1, 463, base=10).tolist()
    entropy = F.cross_entropy if model.labels.exclusive else F.binary_cross_entropy_with_logits
    return min(candidates, key=lambda t: entropy(found / t, wanted).item())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--digits-dir", "--data-dir", type=Path)
    given = parser.parse_args()
    pack(given.run, given.target, given.digits_dir)
