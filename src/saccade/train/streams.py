"""Learning for streams: states in which an event begins amid background, and the threshold of events."""

from __future__ import annotations

import random
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from saccade.labels import Labels
from saccade.nn.memory import Memory
from saccade.stream.joined import Segment, Stream, plan

# Moments of an event, in parts of its length after its beginning, and whether it counts by then.
_EVENT_MOMENTS = ((0.1, False), (0.6, True), (1.0, True))
# Moments after it, in parts of the median length of events.
_AFTER_MOMENTS = (0.6, 1.0)
BACKGROUND_S = 600.0
"""The length of the background in the streams on which the threshold is chosen, all together, in seconds."""


Features = Float[Tensor, "time features"]


@dataclass(frozen=True)
class Rows:
    """States of a memory at moments of joined streams, as rows to learn from.

    Args:
        states: the states.
        targets: the class of each moment.
        groups: the group of the clip that each moment belongs to.
    """

    states: Float[Tensor, "rows states"]
    targets: Int64[Tensor, "rows"]
    groups: tuple[Hashable, ...]


def rows(
    features: Sequence[Features],
    targets: Int64[Tensor, "clips"],
    groups: Sequence[Hashable],
    memory: Memory,
    none: int,
    *,
    seed: int,
) -> Rows:
    """Return states of joined streams: each clip with background before it and after it, in full windows.

    Once an event is a tenth old it does not count yet, from three fifths on it does, and three fifths of a usual event
    after its end it does not count any more. Background is looked at about once in each window of the memory.

    Args:
        features: the features of the frames of each clip.
        targets: the class of each clip.
        groups: the group of each clip.
        memory: the temporal part of the model.
        none: the class that means that nothing happens.
        seed: the seed of the background.
    """
    rng = random.Random(seed)
    background = [clip for clip, target in enumerate(targets.tolist()) if target == none]
    usual = int(median([len(clip) for clip, target in zip(features, targets.tolist(), strict=True) if target != none]))
    found: list[Tensor] = []
    wanted: list[int] = []
    owners: list[Hashable] = []
    for number, clip in enumerate(features):
        target, length = int(targets[number]), len(clip)
        before = _background(features, background, memory.window, rng)
        after = _background(features, background, usual, rng)
        if target == none:
            num = max(2, length // memory.window)
            moments = [(round(part * (length - 1) / num), none) for part in range(num + 1)]
        else:
            moments = [(int(part * (length - 1)), target if counts else none) for part, counts in _EVENT_MOMENTS]
            moments += [(length - 1 + int(part * usual), none) for part in _AFTER_MOMENTS]
        sequence = torch.cat((before, clip, after))
        found += [state_after(memory, sequence[: len(before) + moment + 1]) for moment, _ in moments]
        wanted += [name for _, name in moments]
        owners += [groups[number]] * len(moments)
    return Rows(torch.stack(found), torch.tensor(wanted), tuple(owners))


@torch.inference_mode()
def stream(
    features: Sequence[Features],
    targets: Int64[Tensor, "clips"],
    memory: Memory,
    head: nn.Module,
    labels: Labels,
    fps: float,
    *,
    background_s: float,
    seed: int,
) -> Stream:
    """Join clips to a stream, and return what a model says of it.

    Args:
        features: the features of the frames of each clip.
        targets: the class of each clip.
        memory: the temporal part of the model.
        head: its head.
        labels: its classes, one of which means that nothing happens.
        fps: frames per second.
        background_s: the length of the background, in seconds.
        seed: the seed of the order and of the background.
    """
    lengths = [len(clip) for clip in features]
    segments, happens = plan(lengths, targets.tolist(), labels, fps, background_s=background_s, seed=seed)
    said: list[list[float]] = []
    state = memory.initial_state(1)
    for part in _in_parts(features, segments, memory.window):
        states, state = memory(part.float().unsqueeze(0), state)
        said += labels.probabilities(head(states[0])).tolist()
    return Stream(said, happens)


def _in_parts(features: Sequence[Features], segments: Sequence[Segment], least: int) -> Iterator[Features]:
    """Yield the features of a stream in parts of at least so many frames: each call costs a memory a whole window."""
    waiting: list[Features] = []
    for segment in segments:
        waiting.append(features[segment.clip][segment.first : segment.last])
        if sum(map(len, waiting)) >= least:
            yield torch.cat(waiting)
            waiting = []
    if waiting:
        yield torch.cat(waiting)


def state_after(memory: Memory, frames: Features) -> Float[Tensor, "states"]:
    """Return the state of a memory after the last of some frames; those before it are described only once.

    >>> memory, frames = Memory(2, window=3), torch.arange(10.0).view(5, 2)
    >>> states, _ = memory(frames[None], memory.initial_state(1))
    >>> torch.allclose(state_after(memory, frames), states[0, -1])
    True
    """
    window = frames[-memory.window :].float()
    past, count = memory.initial_state(1)
    num_before = len(window) - 1
    past[0, past.shape[1] - num_before :] = window[:-1]
    states, _ = memory(window[-1:].unsqueeze(0), (past, count + num_before))
    found: Tensor = states[0, -1]
    return found


def _background(features: Sequence[Features], background: Sequence[int], num: int, rng: random.Random) -> Features:
    """Return parts of background clips, `num` frames in all."""
    parts, left = [features[0][:0]], num
    while left > 0:
        clip = features[rng.choice(background)]
        parts.append(clip[rng.randrange((len(clip) + 1) // 2) :][:left])
        left -= len(parts[-1])
    return torch.cat(parts)
