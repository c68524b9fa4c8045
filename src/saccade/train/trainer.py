"""What changes while training runs, how it begins, and how it is kept between two runs."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from saccade import checkpoint
from saccade.data.moving_digits import MovingDigits
from saccade.errors import DataError, NonFiniteError, UsageError
from saccade.nn import attention
from saccade.precision import choose_device, choose_precision
from saccade.train.config import TrainConfig


@dataclass
class Trainer:
    """What changes while training runs: the model, its optimiser and the number of steps done."""

    config: TrainConfig
    model: nn.Module
    optimizer: torch.optim.Optimizer
    long: MovingDigits
    short: tuple[MovingDigits, ...]  # stage by stage
    device: torch.device
    dtype: torch.dtype
    num_steps: int = 0
    step: int = 0
    elapsed_s: float = 0.0
    positions: dict[str, Tensor] = field(default_factory=dict)
    before: dict[str, Any] = field(default_factory=dict)  # what its weights learned from before, and how long

    @property
    def precision(self) -> str:
        """The number format of matrix products, in a word."""
        return str(self.dtype).removeprefix("torch.")


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
                f"{config.start_from} holds a {header.model} for labels {header.data.get('labels')};"
                f" a {config.model} for labels {config.labels} is wanted: change --model and --labels"
            )
        checkpoint.load_weights(model, config.start_from)
        before = _before(header)
    model = model.to(device, memory_format=torch.channels_last)
    digits = config.load_digits("train")
    long, short = config.clips(digits).to(device), tuple(clips.to(device) for clips in config.short_clips(digits))
    dtype = choose_precision(config.precision, device)
    return Trainer(config, model, new_optimizer(model, config), long, short, device, dtype, before=before)


def _before(header: checkpoint.Header) -> dict[str, Any]:
    """Tell what weights have learned from, as the columns of a result row."""
    earlier = header.training.get("before", {})
    conditions = [earlier.get("before_condition"), header.data.get("condition")]
    return {
        "before_condition": ", ".join(dict.fromkeys(name for name in conditions if name)),
        "before_steps": header.training.get("step", 0) + earlier.get("before_steps", 0),
    }


def new_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser of a run that begins; layers that say where to look have a learning rate of their own."""
    attending = {id(p) for layer in attention.attention_layers(model).values() for p in layer.positions.parameters()}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for parameter in model.parameters():
        # Biases and normalisation have one dimension and are not decayed.
        groups.setdefault((id(parameter) in attending, parameter.dim() > 1), []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "lr": config.learning_rate,
                "base_lr": config.learning_rate * (config.attention_rate if attends else 1.0),
                "weight_decay": config.weight_decay if decays else 0.0,
            }
            for (attends, decays), parameters in groups.items()
        ],
        fused=True,
    )


def save(trainer: Trainer, out: Path) -> None:
    """Write weights, optimiser, random state and what says how to go on.

    Raises:
        NonFiniteError: a weight is NaN or infinite; what lies there stays.
        DataError: it cannot be written.
    """
    for name, tensor in trainer.model.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise NonFiniteError(f"{name} is not finite at step {trainer.step}; the last good checkpoint stays")
    state = {
        f"optimizer.{index}.{name}": value
        for index, entry in trainer.optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }
    state["random.cpu"] = torch.get_rng_state()
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
        "condition": config.condition,
        "labels": config.labels,
        "protocol": "end_to_end",
    }
    header = checkpoint.Header(config.model, config.model_arguments(), data, training | {"config": config.as_json()})
    checkpoint.save(out / checkpoint.NAME, trainer.model, header, state)


def restore(trainer: Trainer, out: Path) -> None:
    """Put a trainer where the run in a folder stands.

    Raises:
        UsageError: that is another run.
        DataError: there is none, it is damaged, or holds weights only.
    """
    header = checkpoint.read_header(out)
    _check_same_run(trainer, header, out)
    tensors = checkpoint.load_weights(trainer.model, out)
    if "random.cpu" not in tensors:
        raise DataError(f"{out} holds weights only; it can be used, or started from, but not resumed")
    _restore_optimizer(trainer.optimizer, tensors)
    torch.set_rng_state(tensors["random.cpu"])
    asked = header.training["config"]
    settled = {name: asked[name] for name in ("steps", "minutes", "precision")}
    start_from = Path(asked["start_from"]) if asked["start_from"] else None
    trainer.config = replace(trainer.config, **settled, start_from=start_from)
    trainer.before = header.training.get("before", {})
    trainer.step, trainer.num_steps = header.training["step"], header.training["num_steps"]
    trainer.elapsed_s = header.training["elapsed_s"]


def _check_same_run(trainer: Trainer, header: checkpoint.Header, out: Path) -> None:
    # A run of an older version lacks the options that came since; it ran as their defaults do.
    before, now = TrainConfig().as_json() | header.training.get("config", {}), trainer.config.as_json()
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


def _restore_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    entries: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".")
            entries.setdefault(int(index), {})[name] = value
    optimizer.load_state_dict({"state": entries, "param_groups": optimizer.state_dict()["param_groups"]})
    for parameter, entry in optimizer.state.items():
        for name, value in entry.items():
            if value.shape == parameter.shape:
                # The fused optimiser walks through memory: its state must lie there as the parameter does.
                entry[name] = torch.empty_like(parameter).copy_(value)
