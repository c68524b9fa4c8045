"""What layers say of an input that does not fit, and that they take an empty batch."""

import re

import pytest
import torch
from torch import nn

from saccade.nn import GRU, LSTM, DeformConv2d, OffsetResample2d, PairHead, SpatialTransformer
from saccade.nn.keras_lstm import KerasLSTM
from saccade.nn.spatial_transformer import Identity, IdentityLinear


def looking():
    return SpatialTransformer(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), IdentityLinear(4)), (5, 6))


def started(cell):
    """Let a cell start from no earlier features."""
    return lambda features: cell(features, cell.initial_state(len(features)))[0]


# Each layer, what it takes, and what its error calls the shape that it needs.
LAYERS = {
    "deformable convolution": (DeformConv2d(4, 3, 3, padding=1), (2, 4, 6, 7), "(batch, 4, height, width)"),
    "offset resampling": (OffsetResample2d(4), (2, 4, 6, 7), "(batch, 4, height, width)"),
    "spatial transformer": (looking(), (2, 4, 6, 7), "(batch, channels, height, width)"),
    "Keras's LSTM": (KerasLSTM(8, 4), (2, 3, 8), "(batch, time, 8)"),
    "LSTM": (started(LSTM(8, 4)), (2, 3, 8), "(batch, time, 8)"),
    "GRU": (started(GRU(8, 4)), (2, 3, 8), "(batch, time, 8)"),
}


@pytest.fixture(params=LAYERS)
def case(request):
    return LAYERS[request.param]


def assert_told(layer, shape, wanted):
    with pytest.raises(
        ValueError, match=rf"have shape {re.escape(str(shape))}; {re.escape(wanted)} is needed"
    ) as caught:
        layer(torch.zeros(shape))
    assert "\n" not in str(caught.value)


def test_another_number_of_dimensions_is_told(case):
    layer, shape, wanted = case
    layer(torch.zeros(shape))
    for other in (shape[1:], (1, *shape), shape[2:]):
        assert_told(layer, other, wanted)


def test_another_size_is_told(case):
    layer, shape, wanted = case
    sized = [at for at, name in enumerate(wanted.strip("()").split(", ")) if name.isdigit()]
    for at in sized:
        assert_told(layer, (*shape[:at], shape[at] + 1, *shape[at + 1 :]), wanted)


def test_nothing_to_see_is_told(case):
    layer, shape, wanted = case
    for at in range(1, len(shape)):
        assert_told(layer, (*shape[:at], 0, *shape[at + 1 :]), wanted)


def test_an_empty_batch_gives_an_empty_batch_and_zero_gradients(case):
    layer, shape, _ = case
    empty = torch.zeros(0, *shape[1:], requires_grad=True)
    found = layer(empty)
    assert found.shape == (0, *layer(torch.zeros(shape)).shape[1:])
    parameters = list(layer.parameters()) if isinstance(layer, nn.Module) else []
    for gradient in torch.autograd.grad(found.sum(), [empty, *parameters]):
        assert gradient.isfinite().all()
        assert not gradient.any()


def test_a_transformer_of_fixed_positions_takes_an_empty_batch():
    assert SpatialTransformer(Identity())(torch.zeros(0, 3, 8, 9)).shape == (0, 3, 8, 9)


@pytest.mark.parametrize("size", [(0, 3), (-1, 3), (3,), 2.5, "3"])
def test_an_output_size_that_cannot_be_is_told(size):
    with pytest.raises(ValueError, match=r"out_size is .*; it must be an int or a pair \(y, x\)"):
        SpatialTransformer(Identity(), size)


@pytest.mark.parametrize("cell", [LSTM(8, 4), GRU(8, 4)])
def test_a_state_of_other_features_is_told(cell):
    features = torch.zeros(2, 3, 8)
    for state in (cell.initial_state(3), (), (*cell.initial_state(2), torch.zeros(1, 2, 4))):
        with pytest.raises(
            ValueError, match=r"state has shapes \[.*\]; features of shape \(2, 3, 8\) need \[\(1, 2, 4\)"
        ):
            cell(features, state)


def test_states_of_another_size_are_told():
    for shape in ((2, 7), (), (2, 0)):
        with pytest.raises(ValueError, match=rf"states have shape {re.escape(str(shape))}; \(..., 8\) is needed"):
            PairHead(8, 3)(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.int64, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(
    ("layer", "shape"),
    [(OffsetResample2d(4), (2, 4, 6, 7)), (PairHead(8, 3), (2, 8)), (DeformConv2d(4, 3, 1), (2, 4, 6, 7))],
)
def test_another_dtype_is_told(layer, shape, dtype):
    with pytest.raises(ValueError, match=str(dtype)) as caught:
        layer(torch.zeros(shape, dtype=dtype))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("channels", "kernel"), [(0, 3), (4, -1), (4, 0), (4, 1.5)])
def test_numbers_that_cannot_be_are_told(channels, kernel):
    with pytest.raises(ValueError, match="it must be an int of at least 1"):
        OffsetResample2d(channels, kernel)


def test_an_input_smaller_than_the_kernel_is_told():
    with pytest.raises(
        ValueError, match="input is 2 pixels high with its padding; the dilated kernel needs at least 3"
    ):
        DeformConv2d(4, 3, 3)(torch.zeros(2, 4, 2, 6))
