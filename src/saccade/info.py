"""What this installation has."""

from __future__ import annotations

import torch
from rich.table import Table

from saccade import models
from saccade.checkpoint import versions
from saccade.data import digits
from saccade.nn.attention import num_attention_parameters
from saccade.precision import choose_device, choose_precision
from saccade.run_folder import commit, device_name


def render() -> Table:
    """Render versions, device, models with their sizes, and digit sources."""
    device = choose_device("auto")
    rows = {
        **versions(),
        "commit": commit(),
        "device": f"{device_name(str(device))}, {torch.get_num_threads()} threads",
        "precision": str(choose_precision("auto", device)).removeprefix("torch."),
        "digits": str(digits.resolve("auto")),
    }
    for name in models.names():
        model = models.create(name)
        total = sum(parameter.numel() for parameter in model.parameters())
        rows[name] = f"{total:,} parameters, {num_attention_parameters(model):,} of them for attention"
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(name, value)
    return table
