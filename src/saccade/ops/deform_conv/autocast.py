"""Autocast, for an operator that decides itself what follows it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext

import torch
from torch.amp import is_autocast_available


@torch.compiler.assume_constant_result
def _exists(device: str) -> bool:
    # torch.compile cannot look into the question before torch 2.13.
    return is_autocast_available(device)


def dtype_of(device: str) -> torch.dtype | None:
    """Return what autocast casts to, or None if it is off."""
    active = _exists(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if active else None


def switched_off(device: str) -> AbstractContextManager[object]:
    """Return a context without autocast."""
    return nullcontext() if dtype_of(device) is None else torch.autocast(device, enabled=False)
