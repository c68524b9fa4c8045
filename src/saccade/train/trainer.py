"""What changes while training runs, how it begins, and how it is kept between two runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from saccade import checkpoint
from saccade.data.mixture import Mixture
from saccade.errors import DataError, NonFiniteError, UsageError
from saccade.precision import choose_device, choose_precision
from saccade.train.config import TrainConfig
from saccade.train.optimizer import Optimizer

# What a checkpoint holds beside the model: the optimiser, and the weights that learn where the model is their average.
_OPTIMIZER, _LEARNING = "optimizer.", "learning."
Tensors = tuple[Tensor, ...] | list[Tensor]


@dataclass
class Trainer:
    """What changes while training runs: the model, its optimiser and the number of steps done."""

    config: TrainConfig
    model: nn.Module
    optimizer: Optimizer
    long: Mixture
    short: tuple[Mixture, ...]  # stage by stage
    device: torch.device
    dtype: torch.dtype
    num_steps: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    positions: dict[str, Tensor] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)  # what its weights learned from before, and how long
    average: AveragedModel | None = None  # the moving average of the weights, where one is kept

    @property
    def precision(self) -> str:
        """The number format of matrix products, in a word."""
        return str(self.dtype).removeprefix("torch.")

    @property
    def product(self) -> nn.Module:
        """The model that training is for: the one that learns, or its moving average."""
        return self.model if self.average is None else self.average.module


def start(config: TrainConfig) -> Trainer:
    """Build everything that a run needs, before its first step."""
    device = choose_device(config.device)
    torch.manual_seed(config.seed)
    model = config.create_model()
    before: dict[str, Any] = {}
    if config.start_from is not None:
        header = checkpoint.read_header(config.start_from)
        if (header.model, header.arguments) != (config.model, config.model_arguments()):
            raise UsageError(
                f"{config.start_from} holds a {header.model} ({header.arguments.get('trunk')} trunk) for labels"
                f" {header.data.get('labels')}; a {config.model} ({config.trunk} trunk) for labels {config.labels} is"
                " wanted: change --model, --trunk and --labels"
            )
        checkpoint.load_weights(model, config.start_from)
        before = _before(header)
    model = model.to(device, memory_format=torch.channels_last)
    digits = config.load_digits("train")
    long, short = config.clips(digits).to(device), tuple(clips.to(device) for clips in config.short_clips(digits))
    dtype = choose_precision(config.precision, device)
    average = new_average(model, config)
    return Trainer(config, model, Optimizer(model, config), long, short, device, dtype, before=before, average=average)


def _before(header: checkpoint.Header) -> dict[str, Any]:
    """Tell what weights have learned from, as the columns of a result row."""
    earlier = header.training.get("before", {})
    conditions = [earlier.get("before_condition"), header.data.get("condition")]
    return {
        "before_condition": ", ".join(dict.fromkeys(name for name in conditions if name)),
        "before_steps": header.training.get("step", 0) + earlier.get("before_steps", 0),
    }


def new_average(model: nn.Module, config: TrainConfig) -> AveragedModel | None:
    """Return the moving average of a model that begins, if one is asked for.

    The first steps count more than the decay says, or the average would remember fresh weights for as long as it lasts.
    """
    if not config.ema:
        return None

    @torch.no_grad()
    def update(averages: Tensors, values: Tensors, num_averaged: Tensor | int) -> None:
        seen = int(num_averaged)
        decay = min(config.ema, (1 + seen) / (10 + seen))
        for average, value in zip(averages, values, strict=True):
            if average.is_floating_point():
                average.lerp_(value, 1 - decay)
            else:
                average.copy_(value)

    return AveragedModel(model, multi_avg_fn=update, use_buffers=True)


def save(trainer: Trainer, out: Path) -> None:
    """Write weights, optimiser, random state and what says how to go on.

    Raises:
        NonFiniteError: a weight is NaN or infinite; what lies there stays.
        DataError: it cannot be written.
    """
    for name, tensor in trainer.model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise NonFiniteError(f"{name} is not finite at step {trainer.step}; the last good checkpoint stays")
    state = {_OPTIMIZER + name: tensor for name, tensor in trainer.optimizer.tensors().items()}
    state["random.cpu"] = torch.get_rng_state()
    if trainer.average is not None:
        state |= {_LEARNING + name: tensor for name, tensor in trainer.model.state_dict().items()}
        state["average.num_averaged"] = trainer.average.n_averaged
    training: dict[str, Any] = {
        "step": trainer.step,
        "num_steps": trainer.num_steps,
        "elapsed_s": trainer.elapsed_s,
        "precision": trainer.precision,
        "before": trainer.before,
    }
    config = trainer.config
    data = {
        "digits": trainer.long.source,
        "condition": "+".join(config.condition),
        "labels": config.labels,
        "protocol": "end_to_end",
    }
    header = checkpoint.Header(config.model, config.model_arguments(), data, training | {"config": config.as_json()})
    checkpoint.save(out / checkpoint.NAME, trainer.product, header, state)


def restore(trainer: Trainer, out: Path) -> None:
    """Put a trainer where the run in a folder stands.

    Raises:
        UsageError: that is another run.
        DataError: there is none, it is damaged, or holds weights only.
    """
    header = checkpoint.read_header(out)
    _check_same_run(trainer, header, out)
    tensors = checkpoint.load_weights(trainer.product, out)
    if "random.cpu" not in tensors:
        raise DataError(f"{out} holds weights only; it can be used, or started from, but not resumed")
    if trainer.average is not None:
        trainer.model.load_state_dict(_under(_LEARNING, tensors))
        trainer.average.n_averaged.copy_(tensors["average.num_averaged"])
    trainer.optimizer.load_tensors(_under(_OPTIMIZER, tensors))
    torch.set_rng_state(tensors["random.cpu"])
    asked = header.training["config"]
    settled = {name: asked[name] for name in ("steps", "minutes", "precision")}
    start_from = Path(asked["start_from"]) if asked["start_from"] else None
    trainer.config = replace(trainer.config, **settled, start_from=start_from)
    trainer.before = header.training.get("before", {})
    trainer.step, trainer.num_steps = header.training["step"], header.training["num_steps"]
    trainer.elapsed_s = header.training["elapsed_s"]


def _check_same_run(trainer: Trainer, header: checkpoint.Header, out: Path) -> None:
    # A run of an older version lacks the options that came since; it ran as their defaults do, or did then.
    now = trainer.config.as_json()
    first = {"muon_rate": 0.0, "trunk": "wide"} if header.format == 1 else {}
    before = TrainConfig().as_json() | first | header.training.get("config", {})
    if isinstance(before["condition"], str):  # as version 0.1 wrote it, which knew one condition a run
        before["condition"] = [before["condition"]]
    # How long to train and from which weights was settled when the run began; where the files lie may change.
    free = {"steps", "minutes", "data_dir", "device", "start_from", "precision"}
    pairs = {name: (before.get(name), now[name]) for name in now if name not in free}
    pairs["digits"] = (header.data.get("digits"), trainer.long.source)  # `auto` need not mean the same again
    pairs["precision"] = (header.training.get("precision"), trainer.precision)
    if trainer.config.steps is not None:
        pairs["steps"] = (header.training.get("num_steps"), trainer.config.steps)
    for name, (came, wanted) in pairs.items():
        if came != wanted:
            raise UsageError(
                f"{out} was trained with {name}={came}, now {name}={wanted};"
                " resume with the same, or choose another --out"
            )


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
