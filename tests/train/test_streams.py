"""What a model learns for streams: moments amid background, a part of the head for full windows, a threshold."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from saccade import models
from saccade.clips import FrameFormat
from saccade.data.folds import folds
from saccade.data.stored import StoredClips
from saccade.labels import Labels
from saccade.nn.memory import Memory, MemoryHead
from saccade.stream.joined import MOST_FALSE_ALARMS
from saccade.train import pretrained, streams

LABELS = Labels(("clap", "none", "wave"), none="none")
NONE, WINDOW = 1, 17


def features(num=30, *, size=6, seed=0):
    """Features of clips in which the first numbers tell the class, amid noise; the background has none of both."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(num) % 3
    found = []
    for target in targets.tolist():
        clip = torch.randn(12 + int(torch.randint(0, 4, (), generator=generator)), size, generator=generator)
        if target != NONE:
            clip[:, target // 2 :: 2][:, : 1 + size // 10] += 6
        found.append(clip)
    return found, targets


def rows(**changes):
    found, targets = features()
    memory = Memory(6, window=WINDOW)
    groups = [f"person {number % 5}" for number in range(len(found))]
    return streams.rows(found, targets, groups, memory, NONE, **{"seed": 0} | changes), found, targets, groups


def test_moments_are_those_of_full_windows_and_belong_to_the_groups_of_their_clips():
    made, found, targets, groups = rows()
    assert (made.states[:, -1] == WINDOW).all()
    assert len(made.states) == len(made.targets) == len(made.groups)
    num_events = int((targets != NONE).sum())
    counted = torch.bincount(made.targets, minlength=3)
    assert counted[0] == counted[2] == num_events  # two moments of each event count: half of the events have each class
    assert counted[NONE] == 3 * num_events + 3 * (len(found) - num_events)
    assert made.groups.count("person 0") == sum(
        5 if t != NONE else 3 for t, g in zip(targets, groups, strict=True) if g == "person 0"
    )


def test_an_event_counts_once_most_of_it_is_seen_and_not_long_after():
    made, *_ = rows()
    # The mean of the first number over the window tells how much of a clap is in it.
    share = made.states[:5, 0] / 6
    assert made.targets[:5].tolist() == [NONE, 0, 0, NONE, NONE]
    assert share[0] < share[1] < share[2]
    assert share[4] < share[3]


def test_background_is_a_function_of_the_seed():
    assert torch.equal(rows()[0].states, rows()[0].states)
    assert not torch.equal(rows()[0].states, rows(seed=1)[0].states)


def described(labels=LABELS):
    """Return clips of which a model has seen the features, without having run the trunk."""
    found, targets = features(size=models.create("lite0-memory", labels=labels).temporal.in_features)
    model = models.create(
        "lite0-memory", labels=labels, frame_format=FrameFormat(fps=3.0, channels=3), window=WINDOW, streams=True
    )
    memory = model.temporal
    frames = [torch.zeros(len(clip), 1, 28, 28, dtype=torch.uint8) for clip in found]
    groups = [f"person {number % 5}" for number in range(len(found))]
    clips = StoredClips(frames, targets, labels, groups=groups)
    shares = (1.0, 0.75, 0.5, 0.25, 0.125, 0.0)
    states = [
        torch.stack(
            [
                memory(clip[None, : max(1, round(share * len(clip)))], memory.initial_state(1))[0][0, -1]
                for share in shares
            ]
        )
        for clip in found
    ]
    halves = [clip.half() for clip in found]
    made = pretrained.Described(clips, model, torch.stack(states), np.zeros((len(found), 1), np.float32), halves)
    return made, folds(targets.numpy(), groups, 3, 0)


@pytest.fixture(scope="module")
def heads():
    made, parts = described()
    return made, parts, [pretrained.fitted(made, learned, seed=0) for learned, _ in parts]


def test_events_of_streams_are_found_with_few_false_alarms(heads):
    found = pretrained.events_found(*heads, seed=0)
    assert found.num_events == 20
    assert found.recall > 0.8
    assert found.false_per_minute <= MOST_FALSE_ALARMS
    assert found.delay_s < 5


def test_whole_clips_are_judged_as_by_a_model_without_streams(heads):
    made, parts, fits = heads
    without = replace(made, clips=replace(made.clips, labels=Labels(LABELS.names)), features=())
    alone = [pretrained.fitted(without, learned, seed=0) for learned, _ in parts]
    assert all(fit.stream is None for fit in alone)
    logits = pretrained.out_of_fold(made, parts, fits)
    torch.testing.assert_close(logits, pretrained.out_of_fold(without, parts, alone))
    assert (logits[:, 0].argmax(1) == made.clips.targets).float().mean() > 0.9


def test_full_windows_are_judged_by_the_part_for_streams(heads):
    made, _, fits = heads
    head = MemoryHead(made.states.shape[2], 3, full_window=WINDOW)
    fits[0].copy_to(head)
    states = made.states[:4, 0].clone()
    of_clip = head(states)
    states[:, -1] = WINDOW
    assert not torch.allclose(head(states), of_clip)
    expected = states[:, :-1] @ fits[0].stream.weight.T + fits[0].stream.bias
    torch.testing.assert_close(head(states), expected, rtol=1e-3, atol=1e-2)


def test_without_a_class_that_means_nothing_there_is_neither(heads):
    made, parts, fits = heads
    without = replace(made, clips=replace(made.clips, labels=Labels(LABELS.names)))
    assert pretrained.events_found(without, parts, fits, seed=0) is None


def test_folds_without_background_or_events_are_left_out(heads):
    made, parts, fits = heads
    events = np.flatnonzero(made.clips.targets.numpy() != NONE)
    assert pretrained.events_found(made, [(parts[0][0], events)], fits[:1], seed=0) is None
