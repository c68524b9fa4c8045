"""Show which errors several trainings of one recipe share, and what the mean of their probabilities says.

An error that every training makes, with the same verdict, is more likely due to the recipe or the digits than to
chance. The mean is a model of as many times the size.

Usage: python recipes/agreement.py --models RUN RUN RUN [--num-clips 2000] [--split test] [--out rows.csv]
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor

from saccade import checkpoint, console
from saccade.data.digits import DigitsConfig
from saccade.evaluate import append_rows, standard_test
from saccade.evaluate.forward import Setup, run_clips

BATCH_SIZE = 20


@dataclass(frozen=True)
class Options:
    """Which models, and on which clips.

    Args:
        models: checkpoints or run folders of pairs of digits.
        num_clips: the number of clips of each condition.
        split: validation or test.
        digits_dir: the folder that is searched for MNIST.
        out: the file of the rows, one for each condition.
    """

    models: tuple[Path, ...]
    num_clips: int = 2000
    split: str = "validation"
    digits_dir: Path | None = None
    out: Path = Path("runs/agreement.csv")


def main(options: Options) -> None:
    """Write a row for each condition, and print it."""
    loaded = [checkpoint.load(path) for path in options.models]
    header = loaded[0][1]
    asked = {"num_clips": options.num_clips} | ({"digits_dir": options.digits_dir} if options.digits_dir else {})
    data = standard_test(options.models[0], **asked)
    assert isinstance(data, DigitsConfig), f"{options.models[0]} does not know moving digits"
    for part in data.parts():
        clips = part.clips(options.split)
        probabilities = []
        for number, (model, _) in enumerate(loaded, 1):
            setup = Setup.choose(clips, None, BATCH_SIZE, "auto", "auto")
            with console.counting_bar(f"{part.condition[0]}, {number} of {len(loaded)}") as progress:
                found = run_clips(model, clips, setup, progress=progress)
            probabilities.append(clips.labels.probabilities(found.logits.double()))
        row = agreement(torch.stack(probabilities), found.targets)
        seeds = " ".join(str(told.seed) for _, told in loaded)
        facts = {"model": header.model, "seed": header.seed, "seeds": seeds, **clips.facts}
        facts["checkpoints"] = " ".join(map(str, options.models))
        append_rows(options.out, [facts | row])
        print(f"{part.condition[0]:18}" + "  ".join(f"{name} {value:.4g}" for name, value in row.items()))


def agreement(probabilities: Tensor, targets: Tensor) -> dict[str, Any]:
    """Return the figures of the mean, the errors of each model, those that all make, and those of the same verdict.

    Args:
        probabilities: those of each class, of shape (models, clips, classes).
        targets: the true class of each clip.
    """
    said = probabilities.argmax(-1)
    wrong = said != targets
    by_all = wrong.all(0)
    mean = probabilities.mean(0)
    of_target = mean.gather(1, targets[:, None])[:, 0]
    return {
        "accuracy": (mean.argmax(-1) == targets).double().mean().item(),
        "cross_entropy": -of_target.log().mean().item(),
        "num_clips": len(targets),
        "wrong_of_each": wrong.double().sum(1).mean().item(),
        "wrong_of_all": int(by_all.sum()),
        "same_wrong_verdict": int((by_all & (said == said[0]).all(0)).sum()),
    }


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
