"""Train one model on what several say: the mean of their probabilities, beside the classes themselves.

Three trainings of one recipe make different errors (`recipes/agreement.py`), so that their mean is more accurate than
each. The student learns from that mean, at every frame of clips that none has seen, and keeps the size of one. Digits
are changed more strongly than in the teachers' training: what they say needs no label.

Usage: OMP_NUM_THREADS=1 python recipes/distil.py --teachers RUN RUN RUN --start-from RUN --steps 12000 --out FOLDER
[--digits-dir FOLDER]. An interrupted call continues. `recipes/pack_weights.py` and `saccade evaluate` take the folder.

Source: Hinton, Vinyals, Dean, "Distilling the knowledge in a neural network", 2015.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from saccade import checkpoint, console, run_folder
from saccade.clips import ClipBatch
from saccade.data.digits import TRAINING
from saccade.train import TrainConfig, loop
from saccade.train.end_to_end import start
from saccade.train.trainer import Trainer, restore, save

CONDITIONS = ("normal", "rotation", "scaling", "rotation_scaling", "rotation_scaling", "rotation_scaling")
SHORT_FRACTION = 0.75


@dataclass(frozen=True)
class Options:
    """The teachers, the student and the length.

    Args:
        teachers: checkpoints or run folders of one kind of model, with their temperature.
        start_from: the weights at the beginning; None for random ones.
        steps: the number of steps.
        rate: the learning rates as a fraction of the usual ones.
        hard: the share of the loss on the classes themselves.
        jitter: how strongly digits are changed.
        seed: the seed.
        digits_dir: the folder that is searched for MNIST.
        out: the run folder.
    """

    teachers: tuple[Path, ...]
    start_from: Path | None = None
    steps: int = 12_000
    rate: float = 0.5
    hard: float = 0.25
    jitter: float = 1.0
    seed: int = 0
    digits_dir: Path | None = None
    out: Path = Path("runs/distilled")


@dataclass(frozen=True)
class Taught:
    """The loss of a student: its cross entropy with the mean of its teachers' probabilities and with the classes."""

    teachers: nn.ModuleList
    hard: float
    dtype: torch.dtype

    def __call__(self, logits: Tensor, batch: ClipBatch) -> Tensor:
        """Return the loss, a mean over all frames."""
        with torch.no_grad(), torch.autocast("cpu", dtype=self.dtype, enabled=self.dtype == torch.bfloat16):
            said = torch.stack([teacher(batch.frames).float().softmax(-1) for teacher in self.teachers]).mean(0)
        classes = F.one_hot(batch.targets, logits.shape[-1])[:, None]
        wanted = (1 - self.hard) * said + self.hard * classes
        return -(wanted * logits.float().log_softmax(-1)).sum(-1).mean()


def main(options: Options) -> None:
    """Train the student."""
    loaded = [checkpoint.load(path) for path in options.teachers]
    teachers = nn.ModuleList(model for model, _ in loaded).eval()
    data = replace(
        TRAINING,
        digits="mnist",
        digits_dir=options.digits_dir,
        condition=CONDITIONS,
        short_fraction=SHORT_FRACTION,
        jitter=options.jitter,
    )
    usual = TrainConfig(model=loaded[0][1].model, trunk="wide", steps=options.steps, batch_size=8, seed=options.seed)
    rates = {name: options.rate * getattr(usual, name) for name in ("learning_rate", "muon_rate")}
    begun = run_folder.begun(options.out)
    trainer = start(replace(usual, **rates, start_from=None if begun else options.start_from), data)
    trainer.num_steps = options.steps
    trainer.objective = replace(trainer.objective, loss=Taught(teachers, options.hard, trainer.dtype))
    with run_folder.held(options.out), console.training_bar("distilled") as progress:
        _begin(trainer, options, begun)
        loop.run(trainer, options.out, progress)
        run_folder.update(options.out, finished=True, elapsed_s=round(trainer.elapsed_s, 1))


def _begin(trainer: Trainer, options: Options, begun: bool) -> None:
    """Continue a run, or write the folder of a new one."""
    if begun:
        restore(trainer, options.out, {})
        run_folder.rewind_log(options.out / run_folder.LOG, trainer.step)
        return
    trainer.header.training["teachers"] = [path.name for path in options.teachers]
    save(trainer, options.out)
    facts = {"steps": options.steps, "teachers": [path.name for path in options.teachers]}
    run_folder.create(options.out, "train", trainer.header.training["config"], device=str(trainer.device), **facts)


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
