import json

import pytest
import torch

from saccade.clips import ClipBatch, FrameFormat, Poses, as_float, padded, valid_frames

IMAGENET = FrameFormat(3, (48, 64), (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), 12.5)
FORMATS = [FrameFormat(), FrameFormat(3, None, (0.5,), (0.25,)), FrameFormat(1, (64, 64), (0.13,)), IMAGENET]


def frames_of(channels, *lead, size=(6, 7)):
    return torch.rand(*lead, channels, *size, generator=torch.Generator().manual_seed(0))


def poses_of(batch=3, time=4, things=2):
    generator = torch.Generator().manual_seed(0)
    lead = (batch, time, things)
    return Poses(
        centre_px=torch.rand(*lead, 2, generator=generator),
        angle_deg=torch.rand(lead, generator=generator),
        scale=torch.rand(lead, generator=generator),
        box_px=torch.randint(0, 64, (*lead, 4), generator=generator),
        thing=torch.tensor([[0, 1], [2, -1], [3, 3]]),
        instance=torch.tensor([[10, 11], [12, -1], [13, 14]]),
    )


# --- What a model wants of a frame


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((28, 28), (28, 28)),
        ((64, 96), (64, 96)),
        ((128, 128), (128, 128)),
        ((27, 64), (64, 152)),
        ((64, 129), (64, 129)),
        ((240, 320), (64, 85)),
        ((320, 240), (85, 64)),
        ((20, 500), (64, 256)),
        ((1080, 1920), (64, 114)),
    ],
)
def test_frames_are_kept_or_brought_to_a_short_side_of_64(size, fitted):
    assert FrameFormat().fit(size) == fitted
    assert IMAGENET.fit(size) == (48, 64)


@pytest.mark.parametrize("wanted", FORMATS)
@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_what_is_normalised_can_be_restored(wanted, lead):
    frames = frames_of(wanted.channels, *lead)
    assert torch.allclose(wanted.restore(wanted.normalise(frames)), frames, atol=1e-6)


def test_normalising_subtracts_the_mean_and_divides_by_the_deviation_of_each_channel():
    frames = frames_of(3, 2, 4)
    found = IMAGENET.normalise(frames)
    for channel, (mean, std) in enumerate(zip(IMAGENET.mean, IMAGENET.std, strict=True)):
        assert torch.allclose(found[:, :, channel], (frames[:, :, channel] - mean) / std, atol=1e-5)
    assert torch.allclose(FORMATS[1].normalise(frames), 4 * frames - 2, atol=1e-6)
    assert torch.allclose(FORMATS[2].normalise(frames), frames - 0.13, atol=1e-6)
    assert torch.equal(FrameFormat().normalise(frames), frames)


@pytest.mark.parametrize("wanted", FORMATS)
def test_grey_levels_are_fractions_of_255(wanted):
    levels = torch.randint(0, 256, (2, wanted.channels, 5, 5), dtype=torch.uint8)
    assert torch.equal(wanted.normalise(levels), wanted.normalise(levels.float() / 255))
    assert torch.equal(as_float(levels), levels.float() / 255)


@pytest.mark.parametrize("wanted", FORMATS)
def test_a_format_comes_back_from_json(wanted):
    assert FrameFormat.from_json(json.loads(json.dumps(wanted.as_json()))) == wanted


# --- Clips of several lengths


def test_shorter_clips_are_padded_at_the_end():
    clips = [torch.full((length, 1, 2, 3), float(length)) for length in (2, 4, 1)]
    frames, lengths = padded(clips)
    assert frames.shape == (3, 4, 1, 2, 3)
    assert lengths.tolist() == [2, 4, 1]
    for row, clip in zip(frames, clips, strict=True):
        assert torch.equal(row[: len(clip)], clip)
        assert not row[len(clip) :].any()


def test_clips_of_one_length_need_no_lengths():
    frames, lengths = padded([torch.ones(3, 1, 2, 2, dtype=torch.uint8)] * 2)
    assert (frames.shape, frames.dtype, lengths) == ((2, 3, 1, 2, 2), torch.uint8, None)


def test_the_first_frames_of_a_clip_are_valid():
    expected = [[True, False, False], [True, True, True]]
    assert valid_frames(torch.tensor([1, 3]), 3).tolist() == expected


def test_a_batch_says_which_frames_count():
    batch = ClipBatch(torch.ones(2, 3, 1, 8, 8), torch.arange(2), torch.tensor([1, 3]))
    assert batch.valid.tolist() == [[True, False, False], [True, True, True]]
    assert ClipBatch(batch.frames, batch.targets).valid is None


@pytest.mark.parametrize("lengths", [[0, 2], [1, 4]])
def test_impossible_lengths_are_refused(lengths):
    with pytest.raises(ValueError, match=r"lengths must lie in 1 to 3; got \["):
        valid_frames(torch.tensor(lengths), 3)


# --- Batches and poses


def test_a_batch_moves_as_a_whole():
    batch = ClipBatch(torch.ones(3, 4, 1, 8, 8), torch.arange(3), torch.tensor([4, 2, 1]), poses_of())
    moved = batch.to("meta")
    tensors = (moved.frames, moved.targets, moved.lengths, *vars(moved.poses).values())
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert batch.frames.device.type == "cpu"
    bare = ClipBatch(batch.frames, batch.targets).to("meta")
    assert (bare.frames.device.type, bare.lengths, bare.poses) == ("meta", None, None)


def test_poses_are_changed_field_by_field():
    poses = poses_of()
    first = poses.map(lambda values: values[:1])
    for name, values in vars(poses).items():
        assert torch.equal(getattr(first, name), values[:1]), name
    assert len(poses.thing) == 3


def test_what_a_clip_lacks_is_not_present():
    assert poses_of().present.tolist() == [[True, True], [True, False], [True, True]]
