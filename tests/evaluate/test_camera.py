"""Clips as a slower camera or a bad connection delivers them."""

import json

import pytest
import torch
from torch import nn

from saccade.data import StoredClips
from saccade.evaluate import ThroughCamera, evaluate, losing, slower, through_cameras
from saccade.evaluate.camera import DROPPED, EVERY
from saccade.evaluate.forward import Setup
from saccade.labels import Labels

LENGTHS = (12, 9, 12, 5)


def counting_clips(lengths=LENGTHS, **named):
    """Make clips whose frames show their own number."""
    frames = [torch.arange(n, dtype=torch.uint8).view(n, 1, 1, 1).expand(n, 1, 4, 4) for n in lengths]
    return StoredClips(frames, torch.arange(len(lengths)) % 2, Labels(("smooth", "jerky")), **named)


def shown(clips, index):
    """Tell which frames a clip shows, without the padding."""
    batch = clips.batch(torch.arange(len(clips)))
    length = batch.frames.shape[1] if batch.lengths is None else int(batch.lengths[index])
    return batch.frames[index, :length, 0, 0, 0].tolist()


class SeesStandstill(nn.Module):
    """Says jerky after a frame that is the same as the one before."""

    causal = True

    def forward(self, clips, lengths=None):
        levels = clips.float().mean((2, 3, 4))
        still = torch.diff(levels, dim=1, prepend=levels[:, :1] - 1) == 0
        jerky = (still.cumsum(1) > 0).float()
        return torch.stack((1 - jerky, jerky), -1)


def measured(clips, batch_size=4):
    model = SeesStandstill()
    setup = Setup.choose(clips, None, batch_size, "cpu", "float32")
    return through_cameras(model, clips, setup, evaluate(model, clips, precision="float32").clips)


@pytest.mark.parametrize("arrived", [slower(1), losing(0.0)])
def test_a_camera_that_delivers_all_frames_changes_nothing(arrived):
    clips = counting_clips()
    seen = ThroughCamera(clips, arrived)
    for index, length in enumerate(LENGTHS):
        assert shown(seen, index) == list(range(length))


def test_a_slower_camera_repeats_its_last_frame():
    seen = ThroughCamera(counting_clips(), slower(4))
    assert shown(seen, 0) == [0, 0, 0, 0, 4, 4, 4, 4, 8, 8, 8, 8]
    assert shown(seen, 3) == [0, 0, 0, 0, 4]


def test_frames_are_lost_at_about_the_rate_and_never_come_early():
    clips = counting_clips((200,) * 10)
    lost = 0
    for index in range(10):
        frames = shown(ThroughCamera(clips, losing(0.25)), index)
        assert frames == sorted(frames)
        assert frames[0] == 0
        assert all(frame <= t for t, frame in enumerate(frames))
        lost += sum(frame != t for t, frame in enumerate(frames))
    assert 0.2 < lost / 2000 < 0.3


def test_a_frame_that_a_good_connection_loses_a_worse_one_loses_too():
    clips = counting_clips((50,))
    few, many = (shown(ThroughCamera(clips, losing(share)), 0) for share in (0.1, 0.5))
    assert {t for t, frame in enumerate(few) if frame != t} < {t for t, frame in enumerate(many) if frame != t}


def test_clips_lose_different_frames_and_the_same_ones_each_time():
    clips = counting_clips((40, 40))
    seen = ThroughCamera(clips, losing(0.5))
    assert shown(seen, 0) != shown(seen, 1)
    alone = seen.batch(torch.tensor([1])).frames
    assert torch.equal(alone[0], seen.batch(torch.tensor([0, 1])).frames[1])  # also without its neighbour
    assert shown(ThroughCamera(clips, losing(0.5, seed=1)), 0) != shown(seen, 0)


def test_all_that_a_camera_leaves_is_kept():
    clips = counting_clips(names=list("abcd"), groups=list("ppqq"))
    seen = ThroughCamera(clips, slower(2)).to("cpu")
    assert (len(seen), seen.labels, seen.facts) == (4, clips.labels, clips.facts)
    assert (seen.names, seen.groups) == (clips.names, clips.groups)
    whole, slow = clips.batch(torch.arange(4)), seen.batch(torch.arange(4))
    assert torch.equal(whole.targets, slow.targets)
    assert torch.equal(whole.lengths, slow.lengths)


def test_what_a_model_does_not_see_again_changes_its_verdicts():
    found = measured(counting_clips((12,) * 8))
    assert [(one.every, one.dropped) for one in found] == [
        *((every, 0.0) for every in (1, *EVERY)),
        *((1, share) for share in DROPPED),
    ]
    # It says "smooth", which half of the clips are; any slower camera makes it say "jerky", which the other half are.
    assert [one.accuracy for one in found[:4]] == [0.5] * 4
    assert [one.num_changed for one in found[:4]] == [0, 8, 8, 8]
    assert found[0].difference is None
    assert found[1].difference.mean == 0.0
    assert found[1].difference.low < 0 < found[1].difference.high
    assert [one.num_changed for one in found[4:]] == sorted(one.num_changed for one in found[4:])
    assert all(one.low <= one.accuracy <= one.high for one in found)


def test_the_difference_is_that_of_the_accuracies():
    clips = counting_clips((12,) * 6)
    clips = StoredClips(clips.frames, torch.zeros(6, dtype=torch.long), clips.labels)
    found = measured(clips)
    assert [one.accuracy for one in found[:2]] == [1.0, 0.0]
    assert found[1].difference.mean == -1.0


def test_figures_do_not_depend_on_the_batch_size():
    clips = counting_clips(LENGTHS * 3, groups=list("pqrs") * 3)
    assert measured(clips, 1) == measured(clips, 5)


def test_a_camera_is_told_in_words_and_in_json():
    found = measured(counting_clips())
    assert found[0].told() == "all frames"
    assert [one.told(15.0) for one in found[:4]] == [
        "all frames (15 frames/s)",
        "every 2nd frame (7.5 frames/s)",
        "every 3rd frame (5 frames/s)",
        "every 4th frame (3.8 frames/s)",
    ]
    assert found[5].told(15.0) == "25 % of the frames lost"
    told = json.loads(json.dumps([one.as_json() for one in found], allow_nan=False))
    assert told[0]["difference"] is None
    assert set(told[1]["difference"]) == {"mean", "low", "high"}
