from dataclasses import replace

import pytest
import torch

from saccade.data import StoredClips, StoredData
from saccade.data.augment import Augmentation
from saccade.data.stored import StoredBatches
from saccade.errors import UsageError
from saccade.labels import Labels

LABELS = Labels(("a", "b"))


def clips_of(lengths, size=(32, 40)):
    """Clips whose pixels tell clip and frame."""
    frames = [
        torch.stack([torch.full((1, *size), 10 * clip + t, dtype=torch.uint8) for t in range(length)])
        for clip, length in enumerate(lengths)
    ]
    return StoredClips(frames, torch.arange(len(lengths)) % 2, LABELS)


def seen_in(batch):
    """Which clip, and which first and last frame of it, each row shows."""
    lengths = [batch.frames.shape[1]] * len(batch.frames) if batch.lengths is None else batch.lengths.tolist()
    first = [int(row[0, 0, 0, 0]) for row in batch.frames]
    last = [int(row[length - 1, 0, 0, 0]) for row, length in zip(batch.frames, lengths, strict=True)]
    return [(one // 10, one % 10, other % 10) for one, other in zip(first, last, strict=True)]


def test_whole_clips_are_padded_with_lengths():
    batch = clips_of((3, 5, 2)).batch(torch.tensor([2, 1]))
    assert batch.lengths.tolist() == [2, 5]
    assert seen_in(batch) == [(2, 0, 1), (1, 0, 4)]
    assert batch.targets.tolist() == [0, 1]
    assert not batch.frames[0, 2:].any()
    assert clips_of((3, 3)).batch(torch.arange(2)).lengths is None


def test_each_pass_shows_every_clip_once_in_an_order_of_its_own():
    batches = StoredBatches(clips_of((2,) * 7), size=3, num_frames=4, seed=0)
    shown = [clip for step in range(14) for clip, _, _ in seen_in(batches(step, 14))]
    passes = [shown[start : start + 7] for start in range(0, 42, 7)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len(set(map(tuple, passes))) > 1


def test_a_batch_is_a_function_of_seed_and_step():
    def shown(seed, step):
        return seen_in(StoredBatches(clips_of((9,) * 7), size=4, num_frames=3, seed=seed)(step, 100))

    assert shown(0, 5) == shown(0, 5)
    assert shown(0, 5) != shown(0, 6)
    assert shown(0, 5) != shown(1, 5)


def test_long_clips_are_cut_anywhere_and_short_ones_are_whole():
    batches = StoredBatches(clips_of((9, 2)), size=2, num_frames=4, seed=0)
    cuts = set()
    for step in range(60):
        for clip, first, last in seen_in(batches(step, 60)):
            assert (first, last) == (0, 1) if clip else last - first == 3
            cuts.add((clip, first))
    assert cuts == {(1, 0), *((0, start) for start in range(6))}


def test_targets_follow_their_clips():
    batch = StoredBatches(clips_of((2,) * 6), size=6, num_frames=2, seed=3)(0, 1)
    assert batch.targets.tolist() == [clip % 2 for clip, _, _ in seen_in(batch)]


def come(clips, num_epochs=4):
    """Return how often each clip comes in some epochs."""
    batches = StoredBatches(clips, size=1, num_frames=2, seed=0)
    places = range(num_epochs * batches.epoch_size)
    shown = [seen_in(batches(step, 1))[0][0] for step in places]
    return torch.tensor([shown.count(clip) for clip in range(len(clips))]) / num_epochs


def test_clips_of_a_rare_class_come_more_often():
    rare = torch.arange(20) % 10 == 0
    found = come(replace(clips_of((2,) * 20), targets=rare.long()))
    assert (found[~rare] == 1).all()  # nothing is left out
    assert (found[rare] == 3).all()  # the root of nine
    with_none = replace(clips_of((2,) * 20), targets=rare.long(), labels=Labels(("a", "b", "nobody has it")))
    assert torch.equal(come(with_none), found)


def test_a_clip_of_several_classes_comes_as_often_as_its_rarest():
    targets = torch.zeros(20, 2)
    targets[:16, 0] = 1
    targets[[3, 18, 19], 1] = 1
    targets[17] = 0
    found = come(replace(clips_of((2,) * 20), targets=targets, labels=Labels(("a", "b"), exclusive=False)), 6)
    assert found[[3, 18, 19]].mean() == pytest.approx((16 / 3) ** 0.5, rel=0.05)
    assert found[[0, 1, 2, *range(4, 18)]].mean() == pytest.approx(1.0, rel=0.05)


def test_epochs_with_repeated_clips_have_orders_of_their_own():
    clips = replace(clips_of((2,) * 20), targets=(torch.arange(20) % 10 == 0).long())
    batches = StoredBatches(clips, size=24, num_frames=2, seed=0)
    epochs = [tuple(clip for clip, _, _ in seen_in(batches(step, 9))) for step in range(4)]
    assert len(set(epochs)) == 4
    assert all(len(epoch) == 24 for epoch in epochs)
    apart = [abs(epoch.index(0) - (23 - epoch[::-1].index(0))) for epoch in epochs]
    assert max(apart) > 4


def noise(num, num_frames):
    generator = torch.Generator().manual_seed(0)
    frames = [torch.randint(256, (num_frames, 3, 32, 40), dtype=torch.uint8, generator=generator) for _ in range(num)]
    return StoredClips(frames, torch.arange(num) % 2, LABELS)


def test_augmented_batches_are_a_function_of_seed_and_step():
    plain = StoredBatches(noise(6, 9), size=4, num_frames=8, seed=0)
    batches = replace(plain, augmentation=Augmentation())
    for step in range(6):
        batch, again = batches(step, 6), batches(step, 6)
        assert torch.equal(batch.frames, again.frames)
        assert torch.equal(batch.targets, plain(step, 6).targets)
        assert batch.frames.shape[1] <= 8
    assert batches(0, 6).frames.shape != plain(0, 6).frames.shape or not torch.equal(
        batches(0, 6).frames, plain(0, 6).frames
    )
    # A clip is changed in another way each time it comes.
    one = StoredBatches(noise(1, 4), size=1, num_frames=4, seed=0, augmentation=Augmentation(rate=(1.0, 1.0)))
    assert len({tuple(one(step, 9).frames.flatten().tolist()) for step in range(5)}) == 5


def test_a_clip_comes_as_itself_or_as_one_of_its_views():
    rare = (torch.arange(6) % 6 == 0).long()
    clips = replace(clips_of((9, 2, 2, 2, 2, 2)), targets=rare)
    plain = StoredBatches(clips, size=7, num_frames=4, seed=0)
    views = [[frames + shift for frames in clips.frames] for shift in (100, 180)]
    batches = replace(plain, views=views)
    shifts = {clip: [] for clip in range(6)}
    for step in range(60):
        batch, before = batches(step, 60), plain(step, 60)
        assert torch.equal(batch.frames, batches(step, 60).frames)
        assert torch.equal(batch.targets, before.targets)
        by = batch.frames[:, 0, 0, 0, 0].int() - before.frames[:, 0, 0, 0, 0].int()
        for row, shift in enumerate(by.tolist()):
            length = before.lengths[row]  # the same clips and cuts, with another look
            assert torch.equal(batch.frames[row, :length], before.frames[row, :length] + shift)
            shifts[int(before.frames[row, 0, 0, 0, 0]) // 10].append(shift)
    for clip, drawn in shifts.items():
        shares = torch.tensor([drawn.count(shift) for shift in (0, 100, 180)]) / len(drawn)
        assert (shares - 1 / 3).abs().max() < 0.15, clip
    assert sum(map(len, shifts.values())) == 420
    assert any(one != other for one, other in zip(shifts[0], shifts[1], strict=False))


def test_data_in_memory_tells_what_a_model_needs():
    data = StoredData(clips_of((3, 4)), clips_of((5,)), name="mine")
    assert (data.frame_format.channels, data.frame_format.size) == (1, (32, 40))
    assert data.facts == {"data": "mine"}
    assert len(data.clips("test")) == 1
    with pytest.raises(UsageError, match="no clips for validation"):
        data.clips("validation")


def test_clips_that_do_not_belong_together_are_refused():
    frames = [torch.zeros(2, 1, 32, 32, dtype=torch.uint8), torch.zeros(2, 1, 32, 33, dtype=torch.uint8)]
    with pytest.raises(UsageError, match="several shapes"):
        StoredClips(frames, torch.tensor([0, 1]), LABELS)
    with pytest.raises(UsageError, match="1 clips, but 2 targets"):
        StoredClips(frames[:1], torch.tensor([0, 1]), LABELS)
    with pytest.raises(UsageError, match="no clips"):
        StoredClips([], torch.tensor([]), LABELS)
