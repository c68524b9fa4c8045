"""Random integers as a function of (seed, split, index, draw): no state, the same on every device.

The generator is the output function of SplitMix64 (Steele, Lea, Flood 2014, "Fast splittable pseudorandom number
generators") applied to a counter. Split, index and draw occupy separate bits of the counter, and the function is a
bijection. For one seed, no two splits therefore share a 64-bit state.
"""

from __future__ import annotations

from jaxtyping import Int64
from torch import Tensor

INDEX_BITS = 38
DRAW_BITS = 24
_MASK = (1 << 64) - 1


def _signed(value: int) -> int:
    """Wrap an unsigned 64-bit integer into the range of int64, where torch wraps the same way."""
    value &= _MASK
    return value - (1 << 64) if value >> 63 else value


_GOLDEN = _signed(0x9E3779B97F4A7C15)
_MIX_1 = _signed(0xBF58476D1CE4E5B9)
_MIX_2 = _signed(0x94D049BB133111EB)


def _shift_right(value: Int64[Tensor, "..."], bits: int) -> Int64[Tensor, "..."]:
    """Shift right without sign extension; the operator `>>` of int64 extends the sign."""
    return (value >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Int64[Tensor, "..."]) -> Int64[Tensor, "..."]:
    z = (z ^ _shift_right(z, 30)) * _MIX_1
    z = (z ^ _shift_right(z, 27)) * _MIX_2
    return z ^ _shift_right(z, 31)


def _key(seed: int) -> int:
    """Spread the seed over 64 bits, so that neighbouring seeds give unrelated sequences."""
    z = (seed * 0x9E3779B97F4A7C15 + 0x632BE59BD9B4E019) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return _signed(z ^ (z >> 31))


def draw_u32(
    seed: int, stream: int, index: Int64[Tensor, "*#shape"], draw: Int64[Tensor, "*#shape"]
) -> Int64[Tensor, "*shape"]:
    """Draw integers uniform in [0, 2**32).

    Args:
        seed: any integer.
        stream: 0 to 3; the sequences of two streams have no 64-bit state in common.
        index: the index of the clip, below 2**38.
        draw: the number of the draw within the clip, below 2**24; broadcasts against `index`.

    >>> import torch
    >>> draw_u32(0, 0, torch.tensor([0, 1]), torch.tensor(0)).tolist()
    [1476488695, 2099805367]
    """
    counter = (
        (index << DRAW_BITS) + draw + (stream << (INDEX_BITS + DRAW_BITS) if stream < 2 else _signed(stream << 62))
    )
    return _shift_right(_mix(counter * _GOLDEN + _key(seed)), 32)
