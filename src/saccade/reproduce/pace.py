"""The number of training steps that fit into given minutes while several models share the cores."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from saccade.data.digits import DigitsConfig
from saccade.train import TrainConfig
from saccade.train.end_to_end import start
from saccade.train.loop import Progress, advance
from saccade.train.trainer import Trainer

WINDOW_S = 6.0
_MANY = 1_000_000


@dataclass(frozen=True)
class Pace:
    """The cost of a training step of a model, measured while the other models ran too.

    Args:
        work_s: the processor seconds of a step; on a GPU the elapsed seconds.
        cores: the processor seconds that the process got per elapsed second.
    """

    work_s: float
    cores: float


def measure(asked: tuple[TrainConfig, DigitsConfig], progress: Progress) -> Pace:
    """Time steps of a model for a few seconds, half of them on short clips."""
    trainer = start(*asked)
    trainer.num_steps = _MANY
    _step(trainer, 0)  # the first step is slower than the others
    clock, processor, num_steps = time.perf_counter(), time.process_time(), 0
    while num_steps < 4 or (num_steps % 2 or time.perf_counter() - clock < WINDOW_S):
        progress({"step": num_steps, "num_steps": num_steps + 1})
        _step(trainer, num_steps)
        num_steps += 1
    clock, processor = time.perf_counter() - clock, time.process_time() - processor
    on_gpu = trainer.device.type != "cpu"
    return Pace((clock if on_gpu else processor) / num_steps, 1.0 if on_gpu else processor / clock)


def _step(trainer: Trainer, number: int) -> None:
    trainer.step = 0 if number % 2 else _MANY - 2
    advance(trainer)


def steps_within(seconds: float, paces: Sequence[Pace], extra_steps: Sequence[float], *, at_once: int) -> int:
    """Return the number of steps that every model can take if all models together have some seconds.

    Args:
        seconds: the time for training and testing all models.
        paces: the pace of each model, measured with `at_once` models at once.
        extra_steps: the duration of the tests of each model, in training steps.
        at_once: the number of models that train at once.

    >>> steps_within(60, [Pace(0.5, 0.7), Pace(1.0, 0.65), Pace(1.5, 0.65)], [0, 0, 0], at_once=3)
    40
    """
    tests = [pace.work_s * steps for pace, steps in zip(paces, extra_steps, strict=True)]
    cores = sum(pace.cores for pace in paces) * min(1.0, at_once / len(paces))
    together = (seconds * cores - sum(tests)) / sum(pace.work_s for pace in paces)
    # No model may take longer than the given time. Running alone, it has one core, or as many as when measured.
    alone = min((seconds * max(1.0, pace.cores) - test) / pace.work_s for pace, test in zip(paces, tests, strict=True))
    return max(1, int(min(together, alone)))
