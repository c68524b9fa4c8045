"""Training on a pretrained trunk: its features are computed once, and a linear head is fitted to them exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from torch import Tensor, nn

from saccade import baselines, checkpoint
from saccade.baselines import Rung
from saccade.clips import CPU, FrameFormat
from saccade.data.background import Background
from saccade.data.folds import Fold
from saccade.data.stored import StoredClips
from saccade.labels import Labels
from saccade.models import VideoClassifier, efficientnet
from saccade.models.pretrained import block_sizes, lite0_memory, load_pretrained
from saccade.nn.memory import Memory, MemoryHead
from saccade.stream.joined import Found, best_threshold
from saccade.train import ridge, streams, temperature
from saccade.train.fixed_maps import MapsOf

MODEL = "lite0-memory"
SHORT_SIDE_PX = 160
_LEAST_WINDOW, _LARGEST_WINDOW = 8, 256
# The head also learns from the states after these shares of a clip, with a small weight.
_EARLIER = (0.75, 0.5, 0.25)
# At these, its temperature is fitted too; the last is the first frame.
_FIRST = (0.125, 0.0)
# Of the features that are kept for streams.
_MOST_FEATURE_BYTES = 500_000_000

Frames = Sequence[UInt8[Tensor, "time channels height width"]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Described:
    """What the models of all folds share: clips, their states, and the features of a baseline.

    Args:
        clips: the clips.
        model: a classifier with the pretrained trunk; its head is not fitted yet.
        states: the state of the model at the end of each clip, then at earlier moments, down to the first frame.
        pretrained: statistics of the trunk's pooled features, for the baseline that has no more.
        features: the features of the frames of each clip, in half precision, if streams are learned too; None for a
            clip of which there is no room.
    """

    clips: StoredClips
    model: VideoClassifier
    states: Float[Tensor, "clips moments states"]
    pretrained: NDArray[np.float32]
    features: Sequence[Float[Tensor, "time features"] | None] = ()

    @property
    def none(self) -> int | None:
        """The class that means that nothing happens; None if there is no such class."""
        labels = self.clips.labels
        return None if labels.none is None else labels.names.index(labels.none)


def describe(
    clips: StoredClips, frame_format: FrameFormat, *, longest: int | None = None, progress: Progress | None = None
) -> Described:
    """Build the model of some clips, without its head, and run all clips through it.

    Args:
        clips: the clips; each is read once.
        frame_format: their frames.
        longest: the number of frames of the longest clip, which sets the window of the model's memory, up to 256; None
            reads all clips to count them.
        progress: a function that is called with the number of clips done and the total.

    Raises:
        UsageError: if the pretrained weights are not installed.
    """
    longest = max(len(clip) for clip in clips.frames) if longest is None else longest
    learns_streams = clips.labels.none is not None
    # For streams, a clip must not fill the window: the head has a part of its own for full ones.
    window = min(max(_LEAST_WINDOW, longest + learns_streams), _LARGEST_WINDOW)
    wanted = replace(frame_format, mean=efficientnet.MEAN, std=efficientnet.STD)
    model = lite0_memory(labels=clips.labels, frame_format=wanted, window=window, streams=learns_streams)
    load_pretrained(model.encoder.trunk)  # type: ignore[arg-type]
    model.eval()
    reader = _Reader(model)
    states, statistics = [], []
    memory = model.temporal
    assert isinstance(memory, Memory)
    kept = set() if not learns_streams else _kept(len(clips), window * memory.in_features)
    features: list[Tensor | None] = []
    for number, clip in enumerate(clips.frames, 1):
        state, pooled, of_frames = reader(clip)
        states.append(state)
        features.append(of_frames.half() if number - 1 in kept else None)
        statistics.append(baselines.summarise(pooled).numpy())
        if progress is not None:
            progress(number, len(clips))
    return Described(clips, model, torch.stack(states), np.stack(statistics), features if kept else ())


def _kept(num_clips: int, num_values: int) -> set[int]:
    """Return the clips whose features have room in memory: all, or some at random."""
    most = max(1, _MOST_FEATURE_BYTES // (2 * num_values))
    return set(np.random.default_rng(0).permutation(num_clips)[:most].tolist())


@dataclass(frozen=True)
class Fitted:
    """A head that was fitted to some clips.

    Args:
        linear: the linear head.
        early: its temperature at the first frame, see `MemoryHead`.
        decay: the number of frames in which its excess over 1 falls to 1/e.
        stream: its part for full windows; None if no class means that nothing happens.
    """

    linear: ridge.Linear
    early: float
    decay: float
    stream: ridge.Linear | None

    @torch.no_grad()
    def copy_to(self, head: MemoryHead) -> None:
        """Give a head the weights and the temperature."""
        head.weight.copy_(self.linear.weight)
        head.bias.copy_(self.linear.bias)
        head.early, head.decay = self.early, self.decay
        if head.stream is not None:
            # Where some fold has too few clips for streams, the part for clips serves.
            of_streams = self.linear if self.stream is None else self.stream
            head.stream.weight.copy_(of_streams.weight)
            head.stream.bias.copy_(of_streams.bias)


def fitted(described: Described, indices: NDArray[np.intp], *, seed: int) -> Fitted:
    """Return the head for some of the clips; if one class means that nothing happens, it learns from streams too."""
    clips, chosen = described.clips, torch.from_numpy(indices)
    targets = clips.targets[chosen]
    states, num_frames = described.states[chosen, :, :-1], described.states[chosen, :, -1]
    last, *others = states.unbind(1)
    linear = ridge.fit(
        last,
        targets,
        clips.labels,
        block_sizes=block_sizes(described.model),
        earlier=others[: len(_EARLIER)],
        further=others[len(_EARLIER) :],
        groups=None if clips.groups is None else [clips.groups[index] for index in indices],
        seed=seed,
    )
    early, decay = 1.0, 1.0
    if linear.is_calibrated:
        early, decay = temperature.fitted_early(linear.held_out, num_frames, targets, clips.labels)
    return Fitted(linear, early, decay, _fitted_to_streams(described, indices, seed))


def _fitted_to_streams(described: Described, indices: NDArray[np.intp], seed: int) -> ridge.Linear | None:
    none, clips = described.none, described.clips
    if none is None:
        return None
    features, known = _features(described, indices)
    if Background.of(clips.targets[known], clips.labels) is None:
        return None
    groups = known.tolist() if clips.groups is None else [clips.groups[index] for index in known]
    rows = streams.rows(features, clips.targets[torch.from_numpy(known)], groups, _memory(described), none, seed=seed)
    # Whole clips are learned too: a clip that fills the window is the simplest stream.
    own = torch.from_numpy(known)
    return ridge.fit(
        torch.cat((rows.states[:, :-1], described.states[own, 0, :-1])),
        torch.cat((rows.targets, clips.targets[own])),
        clips.labels,
        block_sizes=block_sizes(described.model),
        groups=[*rows.groups, *groups],
        seed=seed,
    )


def _features(described: Described, indices: NDArray[np.intp]) -> tuple[list[Tensor], NDArray[np.intp]]:
    """Return the features of those of some clips that have them, and which clips these are."""
    found = [(features, index) for index in indices if (features := described.features[index]) is not None]
    return [features for features, _ in found], np.array([index for _, index in found], dtype=np.intp)


def _head(described: Described) -> MemoryHead:
    """Return a head like that of the model, to hold the weights of a fold."""
    own = described.model.head
    assert isinstance(own, MemoryHead)
    return copy.deepcopy(own)


def _memory(described: Described) -> Memory:
    memory = described.model.temporal
    assert isinstance(memory, Memory)
    return memory


def events_found(described: Described, folds: Sequence[Fold], heads: Sequence[Fitted], *, seed: int) -> Found | None:
    """Return how well the heads of folds find events in streams of clips that they did not learn from.

    The test clips of each fold are joined to a stream, with ten minutes of background in all. The threshold is that of
    `best_threshold`. None if no class means that nothing happens, no frame rate is known, or no fold tests both events
    and background.
    """
    fps, labels = described.model.frame_format.fps, described.clips.labels
    if labels.none is None or fps is None:
        return None
    head = _head(described)
    found = []
    for (_, held), fit in zip(folds, heads, strict=True):
        features, known = _features(described, held)
        targets = described.clips.targets[known]
        if Background.of(targets, labels) is not None:
            fit.copy_to(head)
            seconds = streams.BACKGROUND_S / len(folds)
            memory = _memory(described)
            found.append(streams.stream(features, targets, memory, head, labels, fps, background_s=seconds, seed=seed))
    return best_threshold(found, labels, fps) if found else None


@torch.no_grad()
def out_of_fold(
    described: Described, folds: Sequence[Fold], heads: Sequence[Fitted]
) -> Float[Tensor, "clips moments classes"]:
    """Return logits for each clip from the head that was fitted to the other folds; NaN for clips that are in no test.

    The moments are those of `described.states`: the end of the clip comes first.
    """
    num_classes = len(described.clips.labels.names)
    head = _head(described)
    logits = torch.full((*described.states.shape[:2], num_classes), torch.nan)
    for (_, held), fit in zip(folds, heads, strict=True):
        fit.copy_to(head)
        logits[held] = head(described.states[held])
    return logits


def beside_ladder(
    described: Described,
    folds: Sequence[Fold],
    logits: Float[Tensor, "clips classes"],
    *,
    metadata: NDArray[np.float64] | None = None,
    progress: Progress | None = None,
) -> tuple[list[Rung], Rung]:
    """Return simple classifiers on the same folds, and the model with the given logits as one more."""
    clips = described.clips
    rungs = baselines.ladder(
        clips.frames,
        clips.targets.numpy(),
        clips.groups,
        folds,
        metadata=metadata,
        pretrained=described.pretrained,
        progress=progress,
    )
    tested = np.unique(np.concatenate([held for _, held in folds]))
    groups = None if clips.groups is None else [clips.groups[index] for index in tested]
    said = _decided(logits[tested], clips.labels)
    return rungs, baselines.judged(f"model ({MODEL})", said, clips.targets[tested].numpy(), groups)


def header_of(described: Described, data: dict[str, Any], training: dict[str, Any]) -> checkpoint.Header:
    """Return the header of the model's checkpoint."""
    model = described.model
    window = int(model.temporal.window)  # type: ignore[arg-type]
    head = model.head
    assert isinstance(head, MemoryHead)
    arguments: dict[str, Any] = {"window": window, "early": head.early, "decay": head.decay}
    arguments |= {} if head.stream is None else {"streams": True}
    return checkpoint.Header(MODEL, arguments, model.labels, model.frame_format, data, training)


def _decided(logits: Tensor, labels: Labels) -> NDArray[np.intp]:
    decided: NDArray[np.intp] = labels.decide(logits).long().numpy()
    return decided


class _Reader:
    """Read clips with a model and its trunk."""

    def __init__(self, model: VideoClassifier) -> None:
        self.model, self.maps_of = model, MapsOf(model, CPU)
        whole = efficientnet.EfficientNetLite0(model.frame_format.channels)
        load_pretrained(whole)
        self.end = nn.Sequential(*whole.eval().end())

    @torch.inference_mode()
    def __call__(
        self, clip: UInt8[Tensor, "time channels height width"]
    ) -> tuple[Float[Tensor, "moments states"], Float[Tensor, "time pooled"], Float[Tensor, "time features"]]:
        """Return the states at the end of the clip and earlier, statistics of the trunk's last map, and the features.

        The statistics are mean and maximum over the map.
        """
        features, pooled = [], []
        for maps in self.maps_of.parts(clip):
            features.append(self.maps_of.encoder.end(maps))
            last = self.end(maps[:, : maps.shape[1] // 2])  # the maps of frames come before those of changes
            pooled.append(torch.cat((last.mean((2, 3)), last.amax((2, 3))), 1))
        memory = self.model.temporal
        assert isinstance(memory, Memory)
        known = torch.cat(features)
        ends = [max(1, round(share * len(clip))) for share in (1.0, *_EARLIER, *_FIRST)]
        states = [streams.state_after(memory, known[:end]) for end in ends]
        return torch.stack(states), torch.cat(pooled), known
