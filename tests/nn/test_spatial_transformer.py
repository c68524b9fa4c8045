import math

import pytest
import torch
from torch import nn

from saccade.errors import UsageError
from saccade.nn import CloserLook, SpatialTransformer
from saccade.nn.spatial_transformer import Identity, IdentityLinear

SIZES = [(28, 28), (64, 64), (37, 53), (5, 1)]


class Says(nn.Module):
    """A localisation network that says the same of every frame."""

    def __init__(self, *numbers):
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor(numbers))

    def forward(self, frames):
        return self.numbers.expand(len(frames), -1)


def frames_of(size, batch=3, channels=2):
    return torch.rand(batch, channels, *size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("mode", "numbers"), [("affine", (1.0, 0, 0, 0, 1, 0)), ("similarity", (1.0, 0, 0, 0))])
def test_identity_is_the_identity(size, mode, numbers):
    frames = frames_of(size)
    resampled = SpatialTransformer(Says(*numbers), mode=mode)(frames)
    # torch's grid is off by roundings.
    assert (resampled - frames).abs().max() <= 1e-5


@pytest.mark.parametrize("size", [28, 64, 37])
@pytest.mark.parametrize("turns", [1, 2, 3])
def test_quarter_turns_are_exact(size, turns):
    frames = frames_of((size, size))
    cos, sin = [(0, 1), (-1, 0), (0, -1)][turns - 1]
    # The output at the right (x = 1) shows what was at the bottom (y = 1): counter-clockwise on the screen.
    resampled = SpatialTransformer(Says(float(cos), -sin, 0, sin, cos, 0))(frames)
    assert (resampled - torch.rot90(frames, turns, (-2, -1))).abs().max() <= 1e-5


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_a_similarity_turns_by_its_angle(turns):
    frames = frames_of((64, 64))
    resampled = SpatialTransformer(Says(1.0, turns * math.pi / 2, 0, 0), mode="similarity")(frames)
    assert torch.allclose(resampled, torch.rot90(frames, turns, (-2, -1)), atol=1e-4)


@pytest.mark.parametrize(
    ("mode", "numbers"), [("affine", (1.0, 0, 0.5, 0, 1, -0.25)), ("similarity", (1.0, 0, 0.5, -0.25))]
)
def test_a_shift_is_half_a_frame_per_unit(mode, numbers):
    frames = frames_of((32, 64))
    resampled = SpatialTransformer(Says(*numbers), mode=mode)(frames)
    # Looking 0.5 to the right (16 of 64 pixels) and 0.25 up (4 of 32).
    assert torch.allclose(resampled[..., 4:, :48], frames[..., :28, 16:], atol=1e-5)
    assert (resampled[..., :4, :] < 1e-5).all()
    assert (resampled[..., 48:] < 1e-5).all()


def test_zoom_above_one_sees_more_and_the_outside_is_black():
    frames = torch.ones(1, 1, 32, 32)
    resampled = SpatialTransformer(Says(2.0, 0, 0, 0), mode="similarity")(frames)[0, 0]
    inside = resampled > 0.5
    assert inside.sum() == 16 * 16
    assert inside[8:24, 8:24].all()


@pytest.mark.parametrize("size", [(48, 48), (32, 64), (64, 32)])
@pytest.mark.parametrize("angle", [0.5, -2.0])
def test_a_similarity_keeps_circles_round_on_frames_that_are_not_square(size, angle):
    y, x = (torch.arange(n) - (n - 1) / 2 for n in size)
    disc = ((y.view(-1, 1) ** 2 + x**2) < 10**2).float().view(1, 1, *size)
    turned = SpatialTransformer(Says(1.0, angle, 0.0, 0.0), mode="similarity")(disc)
    assert (turned - disc).abs().sum() < 0.12 * disc.sum()


def test_a_similarity_is_the_affine_map_of_its_numbers():
    zoom, angle, x, y = 1.3, 0.4, 0.1, -0.2
    layer = SpatialTransformer(Says(zoom, angle, x, y), mode="similarity")
    theta = layer.theta(layer.positions(frames_of((8, 8), batch=1)))
    cos, sin = zoom * math.cos(angle), zoom * math.sin(angle)
    assert torch.allclose(theta, torch.tensor([[[cos, -sin, x], [sin, cos, y]]]))


@pytest.mark.parametrize("out_size", [(16, 16), (7, 21), (1, 1), (80, 90)])
def test_out_size_is_the_size_of_the_output(out_size):
    frames = torch.full((2, 3, 37, 53), 0.5)
    resampled = SpatialTransformer(Identity(), out_size=out_size)(frames)
    assert resampled.shape == (2, 3, *out_size)
    middle = resampled[..., out_size[0] // 2, out_size[1] // 2]
    assert torch.allclose(middle, torch.tensor(0.5))


def test_each_frame_has_its_own_map():
    class Shifts(nn.Module):
        def forward(self, frames):
            numbers = torch.tensor([1.0, 0, 0, 0, 1, 0]).repeat(len(frames), 1)
            numbers[:, 2] = 2 * torch.arange(len(frames)) / 8
            return numbers

    frames = frames_of((8, 8), batch=4)
    resampled = SpatialTransformer(Shifts())(frames)
    for index in range(4):
        assert torch.allclose(resampled[index, ..., : 8 - index], frames[index, ..., index:], atol=1e-5)


@pytest.mark.parametrize(
    ("mode", "numbers"), [("affine", (0.9, 0.1, 0.2, 0.0, 1.1, -0.1)), ("similarity", (0.9, 0.3, 0.2, -0.1))]
)
def test_gradients_are_those_of_finite_differences(mode, numbers):
    # A smooth picture, black at its border: bilinear sampling of a rough one has a kink at every pixel.
    at = torch.arange(48) / 8
    bump = (at * math.pi / 5.875).sin()
    picture = bump.view(-1, 1) * bump * (at.view(-1, 1) + 0.7 * at).cos()
    frames = picture.expand(1, 1, -1, -1).clone().requires_grad_()
    weights = (at.view(-1, 1) * 0.3).cos() * (at * 0.4).sin()

    def total(layer):
        return (layer(frames) * weights).sum()

    layer = SpatialTransformer(Says(*numbers), mode=mode)
    total(layer).backward()
    gradient = layer.positions.numbers.grad
    expected = torch.zeros_like(gradient)
    for index in range(len(numbers)):
        moved = torch.tensor(numbers).repeat(2, 1)
        moved[:, index] += torch.tensor([0.002, -0.002])
        ends = [total(SpatialTransformer(Says(*row.tolist()), mode=mode)) for row in moved]
        expected[index] = (ends[0] - ends[1]).item() / 0.004
    assert (gradient - expected).abs().max() < 0.03 * expected.abs().max()
    assert frames.grad.abs().sum() > 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_positions_are_float32_under_autocast(dtype):
    layer = SpatialTransformer(Says(1.0, 0, 1 / 64 + 1 / 1024, 0, 1, 0))
    frames = frames_of((64, 64))
    expected = layer(frames)
    with torch.autocast("cpu", dtype):
        assert torch.equal(layer(frames), expected)
        # Frames of few bits are sampled at the same exact places.
        rough = layer(frames.to(dtype))
    assert rough.dtype == dtype
    assert torch.equal(rough, layer(frames.to(dtype).float()).to(dtype))


def test_maps_are_float32_even_where_the_network_is_not():
    layer = SpatialTransformer(Says(1.0, 0, 0, 0, 1, 0).bfloat16())
    frames = frames_of((64, 64))
    assert layer.theta(layer.positions(frames)).dtype == torch.float32
    assert torch.allclose(layer(frames), frames, atol=1e-5)


@pytest.mark.parametrize("mode", ["affine", "similarity"])
def test_the_last_layer_starts_at_the_identity(mode):
    last = IdentityLinear(5, mode)
    frames = frames_of((64, 64))
    layer = SpatialTransformer(
        nn.Sequential(nn.AdaptiveAvgPool2d((1, 5)), nn.Flatten(), nn.LazyLinear(5), last), mode=mode
    )
    assert torch.allclose(layer(frames), frames, atol=1e-5)
    assert last.weight.requires_grad
    layer(frames).square().sum().backward()
    assert last.weight.grad.isfinite().all()
    assert last.weight.grad.abs().max() > 0
    with torch.autocast("cpu", torch.bfloat16):
        assert last(torch.rand(2, 5)).dtype == torch.float32


@pytest.mark.parametrize("mode", ["affine", "similarity"])
def test_neutral_positions_leave_the_frame_as_it_is(mode):
    layer = SpatialTransformer(IdentityLinear(1, mode), mode=mode)
    positions = torch.rand(3, layer.positions.out_features)
    neutral = layer.neutral(positions)
    assert neutral.shape == positions.shape
    assert torch.equal(layer.theta(neutral), torch.eye(2, 3).expand(3, 2, 3))


@pytest.mark.parametrize(("mode", "came", "needed"), [("affine", 4, 6), ("similarity", 6, 4), ("affine", 7, 6)])
def test_a_wrong_number_of_positions_is_refused(mode, came, needed):
    layer = SpatialTransformer(Says(*[0.0] * came), mode=mode)
    with pytest.raises(ValueError, match=f"gave {came} numbers per frame; mode '{mode}' needs {needed}"):
        layer(frames_of((8, 8)))


def test_an_unknown_mode_names_the_nearest():
    with pytest.raises(UsageError, match="no transformer mode is called 'afine'; did you mean 'affine'"):
        SpatialTransformer(Identity(), mode="afine")


# --- A closer look


class Glances(nn.Module):
    """Says the same of every frame, and remembers how large it saw them."""

    def __init__(self, *numbers):
        super().__init__()
        self.numbers, self.size = nn.Parameter(torch.tensor(numbers)), None

    def forward(self, frames):
        self.size = tuple(frames.shape[-2:])
        return self.numbers.expand(len(frames), -1)


WHOLE = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@pytest.mark.parametrize("times", [1, 2, 3])
def test_a_closer_look_at_the_whole_frame_is_the_frame_shrunk(times):
    frames = frames_of((20 * times, 30 * times))
    closer = CloserLook(Glances(*WHOLE), out_px=20)
    assert torch.allclose(closer(frames), nn.functional.avg_pool2d(frames, times), atol=1e-5)


def test_a_stripe_pattern_finer_than_the_output_is_grey():
    stripes = (torch.arange(90) % 2).float().expand(1, 1, 60, 90)
    found = CloserLook(Glances(*WHOLE), out_px=20)(stripes)[..., 1:-1, 1:-1]
    plain = SpatialTransformer(Glances(*WHOLE), (20, 30))(stripes)[..., 1:-1, 1:-1]
    assert (found - 0.5).abs().max() < 0.2
    assert (plain - 0.5).abs().max() > 0.4


def test_a_closer_look_at_a_part_shows_more_than_the_frame_shrunk():
    frames = frames_of((80, 120))
    # A quarter of each side: an output pixel is the mean of places within one pixel of the frame.
    closer = CloserLook(Glances(0.25, 0.0, -0.75, 0.0, 0.25, -0.75), out_px=20)
    assert torch.allclose(closer(frames)[..., 1:-1, 1:-1].mean(), frames[..., 1:19, 1:29].mean(), atol=1e-3)
    steps = frames.round()
    assert (closer(steps) - steps[..., :20, :30]).abs().mean() < 0.3
    shrunk = nn.functional.avg_pool2d(steps, 4)
    assert closer(steps).std() > 2 * shrunk.std()


def test_the_localisation_network_sees_the_frame_small():
    localisation = Glances(*WHOLE)
    CloserLook(localisation, out_px=160, glance_px=64)(frames_of((240, 320)))
    assert localisation.size == (64, 85)
    CloserLook(localisation, out_px=160, glance_px=64)(frames_of((48, 60)))
    assert localisation.size == (48, 60)


def test_a_small_frame_is_enlarged_and_an_empty_batch_stays_empty():
    closer = CloserLook(Glances(*WHOLE), out_px=40)
    assert closer(frames_of((30, 45))).shape == (3, 2, 40, 60)
    assert closer(frames_of((80, 120), batch=0)).shape == (0, 2, 40, 60)


def test_a_closer_look_learns_where_to_look():
    localisation = Glances(*WHOLE)
    CloserLook(localisation, out_px=20)(frames_of((50, 60))).square().sum().backward()
    assert localisation.numbers.grad.isfinite().all()
    assert (localisation.numbers.grad != 0).all()


def test_a_similarity_keeps_angles_in_a_closer_look():
    frames = frames_of((40, 60))
    turned = CloserLook(Glances(1.0, math.pi, 0.0, 0.0), out_px=20, mode="similarity")(frames)
    upright = CloserLook(Glances(1.0, 0.0, 0.0, 0.0), out_px=20, mode="similarity")(frames)
    assert torch.allclose(turned, upright.flip(-1, -2), atol=1e-4)
