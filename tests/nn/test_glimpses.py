"""Several spatial transformers side by side: each is one alone, and each learns."""

import pytest
import torch
from torch import nn

from saccade.errors import UsageError
from saccade.nn import CloserLook, Glimpses, recorded, switched_off

from .test_spatial_transformer import Glances, frames_of

NUMBERS = {
    "affine": [(0.5, 0.1, -0.4, 0.0, 0.6, 0.2), (0.3, 0.0, 0.5, -0.1, 0.4, -0.3), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)],
    "similarity": [(0.5, 0.3, -0.4, 0.2), (0.3, -1.0, 0.5, -0.3), (1.0, 0.0, 0.0, 0.0)],
}


def glimpses(mode="similarity", **sizes):
    numbers = [number for one in NUMBERS[mode] for number in one]
    return Glimpses(Glances(*numbers), num_glimpses=3, mode=mode, **{"out_px": 20} | sizes)


@pytest.mark.parametrize("mode", NUMBERS)
@pytest.mark.parametrize("size", [(28, 28), (20, 33), (45, 60), (90, 70)])
def test_each_glimpse_is_what_a_transformer_alone_sees(mode, size):
    frames, layer = frames_of(size), glimpses(mode)
    crops = layer(frames)
    for glimpse, numbers in enumerate(NUMBERS[mode]):
        alone = CloserLook(Glances(*numbers), out_px=20, mode=mode)
        alone.samples_per_edge = layer.samples_per_edge
        assert torch.allclose(crops[:, glimpse], alone(frames), atol=1e-5)


@pytest.mark.parametrize("times", [1, 2, 4])
def test_switched_off_every_glimpse_is_the_whole_frame(times):
    frames = frames_of((20 * times, 30 * times))
    layer = nn.Sequential(glimpses())
    with switched_off(layer):
        crops = layer(frames)
    whole = nn.functional.avg_pool2d(frames, times)
    assert torch.allclose(crops, whole.unsqueeze(1).expand_as(crops), atol=1e-5)


def test_positions_from_outside_are_not_asked_for_again():
    layer, frames = glimpses(), frames_of((40, 60))
    moved = torch.tensor(NUMBERS["similarity"][::-1]).flatten().expand(3, -1)
    with recorded(layer) as seen:
        crops = layer(frames, moved)
    assert not seen
    assert torch.equal(crops, layer(frames).flip(1))


def test_the_localisation_network_sees_the_frame_small():
    layer = glimpses()
    layer(frames_of((128, 160)))
    assert layer.positions.size == (64, 80)


def test_every_glimpse_learns_where_to_look():
    layer = glimpses()
    crops = layer(frames_of((50, 60)))
    for glimpse in range(3):
        (gradient,) = torch.autograd.grad(crops[:, glimpse].square().sum(), layer.positions.numbers, retain_graph=True)
        own = gradient.view(3, 4)[glimpse]
        assert gradient.isfinite().all()
        assert (own.abs() > 1e-4).all()
        assert gradient.count_nonzero() == 4  # those of other glimpses change nothing


def test_an_empty_batch_stays_empty():
    assert glimpses()(frames_of((30, 45), batch=0)).shape == (0, 3, 2, 20, 30)


def test_what_does_not_fit_is_refused():
    layer = Glimpses(Glances(*[0.0] * 6), num_glimpses=2, out_px=20)
    with pytest.raises(ValueError, match="gave 6 numbers per frame; 2 glimpses of mode 'similarity' need 8"):
        layer(frames_of((30, 30)))
    with pytest.raises(ValueError, match="num_glimpses is 0; it must be an int of at least 1"):
        Glimpses(Glances(1.0), num_glimpses=0, out_px=20)
    with pytest.raises(UsageError, match="no transformer mode is called 'similar'"):
        Glimpses(Glances(1.0), num_glimpses=2, out_px=20, mode="similar")
    with pytest.raises(ValueError, match="frames have shape"):
        glimpses()(torch.zeros(3, 30, 30))
