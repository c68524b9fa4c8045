"""Measure a model on clips with a change, as rows of results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from saccade.attention.forward import evaluating
from saccade.clips import CPU, as_float
from saccade.data import StoredClips
from saccade.device import choose_device
from saccade.errors import UsageError
from saccade.evaluate import metrics
from saccade.evaluate.forward import Setup, run_clips
from saccade.evaluate.rows import Row
from saccade.labels import Labels
from saccade.robustness.changed_clips import ChangedClips, Sample, changed
from saccade.robustness.changes import CHANGES, named

UNCHANGED = "none"
"""The change of rows on clips as they are; its strength is 0."""

BATCH_SIZE = 8

Step = Callable[[int], None]


@dataclass(frozen=True)
class Figures:
    """The accuracy as a fraction and the cross entropy in nats, over a number of clips."""

    accuracy: float
    cross_entropy: float
    num_clips: int

    def columns(self) -> Row:
        """Return the columns of a result row."""
        return {"accuracy": self.accuracy, "cross_entropy": self.cross_entropy, "num_clips": self.num_clips}


def figures_of(
    parts: Sequence[tuple[nn.Module, ChangedClips]],
    *,
    device: torch.device | str = CPU,
    batch_size: int = BATCH_SIZE,
    step: Step | None = None,
) -> Figures:
    """Return the figures over all clips of several models, such as those of folds, each on clips of its own.

    Args:
        parts: the models with their clips.
        device: the device.
        batch_size: the number of clips in a forward pass.
        step: called after each batch with the number of its clips.

    Raises:
        UsageError: if a model's classes are not those of its clips, or the clips do not fit it.
        NonFiniteError: if logits are NaN or infinite.
    """
    logits, targets = [], []
    for model, clips in parts:
        done = 0

        def count(now: int, _total: int) -> None:
            nonlocal done
            if step is not None:
                step(now - done)
            done = now

        setup = Setup.choose(clips, None, batch_size, device, "float32")
        said = run_clips(model, clips, setup, progress=count)
        logits.append(said.logits)
        targets.append(said.targets)
    labels, all_logits, all_targets = parts[0][1].labels, torch.cat(logits), torch.cat(targets)
    return Figures(
        metrics.accuracy(all_logits, all_targets, labels),
        metrics.cross_entropy(all_logits, all_targets, labels),
        len(all_logits),
    )


def measure(
    module: nn.Module,
    clips: Sequence[UInt8[Tensor, "time channels height width"]],
    *,
    labels: Sequence[int],
    changes: Sequence[str] = (),
    strengths: Sequence[float] | None = None,
    name: str = "module",
    seed: int = 0,
    batch_size: int = BATCH_SIZE,
    device: str = "cpu",
    progress: Callable[[int, int], None] | None = None,
) -> list[Row]:
    """Measure a module of your own on clips with changes; return the rows, first that of the clips as they are.

    `saccade.evaluate.write_rows` writes the rows, `saccade.robustness.render` makes a page of them.

    *Conventions:* the module takes float pixels in [0, 1], (batch, time, channels, height, width), and returns logits
    (batch, classes), or (batch, time, classes), of which the last count. It never sees padded frames: clips of
    different lengths go through it one by one.

    Args:
        module: the module; it is moved to the device, and its training mode is restored.
        clips: the clips, uint8 in [0, 255], all of one frame size.
        labels: the class of each clip, as an index of the logits.
        changes: names of `CHANGES`; all of them if none is given.
        strengths: strengths for all these changes; None for those of each change.
        name: what the module is called in the rows.
        seed: the seed of what changes draw, such as noise.
        batch_size: the number of clips in a forward pass.
        device: auto, cpu or cuda.
        progress: called with the number of measured rows and their total.

    Raises:
        UsageError: if a name is unknown, or the clips or labels do not fit the module.
        NonFiniteError: if logits are NaN or infinite.

    >>> class Brightness(nn.Module):
    ...     def forward(self, clips):
    ...         level = clips.mean((1, 2, 3, 4))
    ...         return torch.stack((0.5 - level, level - 0.5), 1)
    >>> clips = [torch.full((4, 3, 32, 32), level, dtype=torch.uint8) for level in (10, 60, 200, 250)]
    >>> rows = measure(Brightness(), clips, labels=[0, 0, 1, 1], changes=["dim"], strengths=[0, 0.2, 0.9])
    >>> [(row["change"], row["strength"], row["accuracy"]) for row in rows]
    [('none', 0.0, 1.0), ('dim', 0.2, 1.0), ('dim', 0.9, 0.5)]
    """
    chosen = named(tuple(changes), tuple(CHANGES))
    adapted = Adapted(module.to(choose_device(device)))
    num_classes = _num_classes(module, clips, choose_device(device))
    if bad := [label for label in labels if not 0 <= label < num_classes]:
        raise UsageError(f"a label is {bad[0]}; the module has the classes 0 to {num_classes - 1}")
    stored = StoredClips(list(clips), torch.tensor(list(labels)), Labels.numbered(num_classes))
    sample = Sample.of(stored, None, seed)
    wanted = [(UNCHANGED, 0.0, ChangedClips(sample))]
    for title, change in chosen.items():
        levels = change.strengths if strengths is None else strengths
        wanted += [(title, float(s), changed(sample, title, change, s, seed)) for s in levels if s != change.unchanged]
    facts: dict[str, Any] = {"model": name, "data": stored.facts["data"], "seed": 0}
    rows: list[Row] = []
    with evaluating(module):
        for title, strength, changed_clips in wanted:
            figures = figures_of([(adapted, changed_clips)], device=device, batch_size=batch_size)
            rows.append(facts | figures.columns() | {"change": title, "strength": strength, "changes_seed": seed})
            if progress is not None:
                progress(len(rows), len(wanted))
    return rows


class Adapted(nn.Module):
    """A module of any origin, called as Saccade's models are.

    Args:
        module: a module from float clips in [0, 1] to logits (batch, classes) or (batch, time, classes).
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        # Not a submodule: the memory format of Saccade's models does not suit convolutions over time.
        self._module = (module,)

    def forward(
        self, clips: UInt8[Tensor, "batch time channels height width"], lengths: Int64[Tensor, "batch"] | None = None
    ) -> Float[Tensor, "batch 1 classes"]:
        """Return the logits of each clip."""
        pixels = as_float(clips)
        if lengths is not None:
            return torch.cat([self(clip[None, :length]) for clip, length in zip(pixels, lengths.tolist(), strict=True)])
        logits = self._module[0](pixels)
        if not isinstance(logits, Tensor) or logits.dim() not in (2, 3) or len(logits) != len(clips):
            came = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise UsageError(
                f"the module returned {came} for {len(clips)} clips; logits (batch, classes) or (batch, time, classes)"
                " are needed"
            )
        return logits.unsqueeze(1) if logits.dim() == 2 else logits[:, -1:]


def _num_classes(module: nn.Module, clips: Sequence[Tensor], device: torch.device) -> int:
    """Ask the module for the number of its classes, by its first clip."""
    if not clips or clips[0].dtype != torch.uint8 or clips[0].dim() != 4:
        came = f"{clips[0].dtype} of shape {tuple(clips[0].shape)}" if clips else "none"
        raise UsageError(f"the first clip is {came}; uint8 (time, channels, height, width) is needed")
    with evaluating(module), torch.no_grad():
        return int(Adapted(module)(clips[0].unsqueeze(0).to(device)).shape[-1])
