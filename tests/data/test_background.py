"""Training clips with background joined to them: which get it, what it is made of, and what each frame counts for."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from saccade.data import StoredClips
from saccade.data.augment import Augmentation
from saccade.data.background import SHARE, Background
from saccade.data.stored import StoredBatches
from saccade.labels import IGNORED, Labels

LABELS = Labels(("none", "wave", "clap"), none="none")
LENGTHS, TARGETS = (30, 11, 20, 25, 10, 4), (0, 1, 2, 0, 1, 2)
BACKGROUND = Background(0, (0, 3))
NUM_FRAMES = 16


def clips_of(lengths=LENGTHS, targets=TARGETS, labels=LABELS):
    """Clips whose pixels tell clip and frame."""
    frames = [
        torch.stack([torch.full((1, 32, 40), 40 * clip + t, dtype=torch.uint8) for t in range(length)])
        for clip, length in enumerate(lengths)
    ]
    return StoredClips(frames, torch.tensor(targets), labels)


def batches_of(**changes):
    return replace(StoredBatches(clips_of(), 6, NUM_FRAMES, 0, background=BACKGROUND), **changes)


def rows_of(batches, num_steps=40):
    """Return clip and frame numbers, classes and target of each row of some batches."""
    rows = []
    for step in range(num_steps):
        batch = batches(step, num_steps)
        lengths = [batch.frames.shape[1]] * len(batch.frames) if batch.lengths is None else batch.lengths.tolist()
        for frames, classes, target, length in zip(
            batch.frames, batch.frame_targets, batch.targets.tolist(), lengths, strict=True
        ):
            assert (classes[length:] == IGNORED).all()
            pixels = frames[:length, 0, 0, 0].tolist()
            rows.append((pixels, classes[:length].tolist(), target))
    return rows


def plain_rows(num_steps=40, seed=0):
    """Return the clips of the same batches without background, as pixels."""
    shown = []
    for step in range(num_steps):
        batch = batches_of(background=None, seed=seed)(step, num_steps)
        assert batch.frame_targets is None
        shown += [
            (frames[:length, 0, 0, 0].tolist(), target)
            for frames, length, target in zip(batch.frames, batch.lengths.tolist(), batch.targets.tolist(), strict=True)
        ]
    return shown


def place_of(inside, whole):
    """Return where a clip begins in a joined clip; only a clip of background might be there twice."""
    return next(at for at in range(len(whole)) if whole[at : at + len(inside)] == inside)


def test_half_of_the_clips_get_background_before_and_half_of_these_after_too():
    rows, plain = rows_of(batches_of()), plain_rows()
    events = [
        (len(pixels), place_of(inside, pixels), len(inside))
        for (pixels, _, _), (inside, target) in zip(rows, plain, strict=True)
        if target
    ]
    joined = [event for event in events if event[1] > 0]
    after = [event for event in events if event[0] > event[1] + event[2]]
    assert len(joined) / len(events) == pytest.approx(SHARE, abs=0.1)
    assert len(after) / len(joined) == pytest.approx(0.5, abs=0.15)
    assert set(after) <= set(joined)
    longer = [
        len(pixels) > len(inside) for (pixels, _, _), (inside, target) in zip(rows, plain, strict=True) if not target
    ]
    assert sum(longer) / len(longer) == pytest.approx(SHARE, abs=0.15)
    lengths = {event[1] for event in joined}
    assert min(lengths) >= NUM_FRAMES // 4
    assert len(lengths) > 8
    assert max(map(len, (pixels for pixels, _, _ in rows))) <= 2 * NUM_FRAMES


def test_background_is_parts_of_its_clips_with_random_starts():
    firsts = set()
    for (pixels, _, _), (inside, target) in zip(rows_of(batches_of()), plain_rows(), strict=True):
        at = place_of(inside, pixels)
        for part in (pixels[:at], pixels[at + len(inside) :]) if target else ():
            assert {pixel // 40 for pixel in part} <= set(BACKGROUND.clips)
            steps = np.diff(part)
            assert part == [] or (steps == 1).mean() > 0.5  # frames of a part follow each other
            firsts |= set(part[:1])
    assert len({first for first in firsts if first < 40}) > 8
    assert len({first for first in firsts if first >= 40}) > 5


def test_frames_count_for_what_happens_in_them():
    seen = {"early": 0, "unclear": 0}
    for (pixels, classes, end), (inside, target) in zip(rows_of(batches_of()), plain_rows(), strict=True):
        at, num = place_of(inside, pixels), len(inside)
        num_after = len(pixels) - at - num
        if not target:
            assert set(classes) == {0}
            continue
        early, unclear = (num // 10 if at else 0), 6 * num_after // 10
        expected = [0] * (at + early) + [target] * (num - early) + [IGNORED] * unclear + [0] * (num_after - unclear)
        assert classes == expected
        assert end == expected[-1] == (0 if num_after else target)
        seen["early"] += early
        seen["unclear"] += unclear
    assert min(seen.values()) > 20


def test_joined_batches_are_a_function_of_seed_and_step():
    def shown(seed, step):
        batch = batches_of(seed=seed)(step, 9)
        return batch.frames[:, :, 0, 0, 0].tolist(), batch.frame_targets.tolist()

    assert shown(0, 5) == shown(0, 5)
    assert shown(0, 5) != shown(0, 6)
    places = []
    for seed in (0, 1):
        rows, plain = rows_of(batches_of(seed=seed)), plain_rows(seed=seed)
        places.append([len(pixels) > len(inside) for (pixels, _, _), (inside, _) in zip(rows, plain, strict=True)])
    assert places[0] != places[1]


def test_background_changes_as_the_clip_does():
    """Otherwise a change of the picture alone would announce an event."""
    dark = clips_of(lengths=(30, 9, 9, 25, 9, 9))
    same = replace(dark, frames=[torch.full_like(frames, 100) for frames in dark.frames])
    batches = batches_of(clips=same, augmentation=replace(Augmentation.none(), brightness=0.5))
    levels = set()
    for pixels, _, _ in rows_of(batches):
        assert len(set(pixels)) == 1
        levels.add(pixels[0])
    assert len(levels) > 20


def test_background_of_clips_that_change_their_speed_is_as_long_as_without():
    batches = batches_of(augmentation=replace(Augmentation.none(), rate=(0.5, 2.0)))
    for pixels, classes, _ in rows_of(batches):
        assert len(pixels) == len(classes) <= 2 * NUM_FRAMES
        assert classes.index(next((name for name in classes if name > 0), classes[0])) <= NUM_FRAMES + 2


def test_maps_and_their_views_are_joined_too():
    clips = clips_of()
    maps = [frames.half() for frames in clips.frames]
    views = [[each + 1000 for each in maps]]
    batches = batches_of(clips=replace(clips, frames=maps), views=views)
    shifted = []
    for pixels, _, _ in rows_of(batches):
        are = {pixel >= 1000 for pixel in pixels}
        assert len(are) == 1  # background is of the same view as the clip
        shifted += are
    assert 0.3 < sum(shifted) / len(shifted) < 0.7
    assert batches(0, 1).frames.dtype == torch.float16


def test_clips_of_one_frame_are_joined():
    batches = batches_of(clips=clips_of(lengths=(1,) * 6), num_frames=1)
    assert {len(pixels) for pixels, _, _ in rows_of(batches)} == {1, 2}


def test_background_needs_events_and_a_class_without():
    targets = torch.tensor([1, 0, 0, 2])
    assert Background.of(targets, LABELS) == Background(0, (1, 2))
    assert Background.of(targets, replace(LABELS, none=None)) is None
    assert Background.of(torch.tensor([0, 0]), LABELS) is None
    assert Background.of(torch.tensor([1, 2]), LABELS) is None
    assert Background.of(torch.eye(2), Labels(("a", "b"), exclusive=False)) is None
