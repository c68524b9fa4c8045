"""Result rows on how much of a model's attention falls on known objects, with controls."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from saccade.attention.measure import Attended, measure
from saccade.clips import LocatedClips
from saccade.evaluate import metrics
from saccade.evaluate.forward import Progress, Setup
from saccade.evaluate.rows import Row
from saccade.nn.attention import attention_layers, switched_off

NUM_UNTRAINED = 3
"""The number of untrained networks of the same shape with which each trained network is compared."""
_OF_TRAINING = ("steps", "trained_on", "checkpoint")


def attention_rows(
    model: nn.Module,
    clips: LocatedClips,
    setup: Setup,
    facts: Mapping[str, Any],
    *,
    untrained: Callable[[int], nn.Module],
    progress: Progress | None = None,
) -> list[Row]:
    """Measure where a model looks, and the controls: the model with attention switched off, and untrained networks.

    There is one row for each network and measure; see `attention.measure` for the measures. Brightness does not depend
    on the network and has only one row. A spatial transformer that is switched off samples the whole frame, so its
    sampled area has no row. Figures are means over clips. A figure named `..._se` is the standard error of such a mean,
    from which intervals are computed. All measurements are in float32, because bfloat16 gradients are too coarse to
    weight pixels.

    Args:
        model: the model, on any device.
        clips: the clips to measure on.
        setup: the number of clips, the batch size and the device.
        facts: the columns of a row that describe the model and the clips.
        untrained: a function from a seed to a network of the same shape with fresh weights.
        progress: called after every batch with the number of clips done and the total number, in each pass.
    """
    trained = {**facts, "trained": "trained", "attention": "on"}
    rows = _rows(model, clips, setup, trained, progress)
    if attention_layers(model):
        with switched_off(model):
            off = _rows(model, clips, setup, trained | {"attention": "off"}, progress)
        rows += [row for row in off if row["measure"] not in ("sampled_area", "ink")]
    # Untrained networks are the same for every training, so the columns on training are empty for them.
    of_training = [name for name in facts if name in _OF_TRAINING or name.startswith("before_")]
    of_fresh = {**trained, "trained": "untrained"} | dict.fromkeys(of_training)
    for seed in range(NUM_UNTRAINED):
        fresh = _rows(untrained(seed), clips, setup, of_fresh | {"seed": seed}, progress)
        rows += [row for row in fresh if row["measure"] != "ink"]
    return rows


def _rows(
    model: nn.Module, clips: LocatedClips, setup: Setup, facts: Mapping[str, Any], progress: Progress | None
) -> list[Row]:
    """Measure one network and return a row for each measure that it has."""
    model.to(setup.device)
    moved = clips.to(setup.device)
    assert isinstance(moved, LocatedClips)
    batches, logits, targets = [], [], []
    for first in range(0, setup.num_clips, setup.batch_size):
        last = min(first + setup.batch_size, setup.num_clips)
        # One clip more, because the attention in each clip is also compared with the objects of the next clip.
        batch = moved.located(torch.arange(first, last + 1, device=setup.device))
        assert batch.poses is not None
        here, elsewhere_px = batch.poses.map(lambda all_clips: all_clips[:-1]), batch.poses.box_px[1:]
        found, final = measure(model, batch.frames[:-1], here, elsewhere_px)
        batches.append(found)
        logits.append(final.cpu())
        targets.append(batch.targets[:-1].cpu())
        if progress is not None:
            progress(last, setup.num_clips)
    measured = {
        "accuracy": metrics.accuracy(torch.cat(logits), torch.cat(targets), clips.labels),
        "cross_entropy": metrics.cross_entropy(torch.cat(logits), torch.cat(targets), clips.labels),
        "num_clips": setup.num_clips,
    }
    return [
        {**facts, **measured, "measure": name, **_figures([batch[name] for batch in batches])} for name in batches[0]
    ]


def _figures(batches: list[Attended]) -> dict[str, float | None]:
    """Return the mean and the standard error over clips of every figure."""
    ratio = torch.cat([batch.ratio for batch in batches])
    by_clip = {"ratio": ratio.nanmean(1)}
    for name in ("ratio_min", "ratio_min_elsewhere", "all_above", "all_above_elsewhere"):
        by_clip[name] = torch.cat([getattr(batch, name) for batch in batches])
    for name in batches[0].following:
        by_clip[name] = torch.cat([batch.following[name] for batch in batches])
    by_clip |= {f"ratio_digit_{digit}": values for digit, values in enumerate(ratio.unbind(1), 1)}
    found: dict[str, float | None] = {}
    for name, values in by_clip.items():
        found[name], found[f"{name}_se"] = _mean_and_error(values.double())
    return found


def _mean_and_error(values: Tensor) -> tuple[float | None, float | None]:
    values = values[~values.isnan()]
    if len(values) == 0:
        return None, None
    return values.mean().item(), (values.std() / len(values) ** 0.5).item() if len(values) > 1 else None
