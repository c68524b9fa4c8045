"""The command `saccade info`: what is installed and available."""

from __future__ import annotations

import torch
from rich.table import Table

from saccade import models
from saccade.checkpoint import versions
from saccade.data import digits
from saccade.device import choose_device, choose_precision
from saccade.nn.attention import num_attention_parameters
from saccade.ops.deform_conv.backends import BACKENDS
from saccade.ops.deform_conv.cpu import instruction_sets
from saccade.run_folder import commit, device_name


def render() -> Table:
    """Return a table of versions, device, digit sources, the operator's backends, and the models with their sizes."""
    device = choose_device("auto")
    rows = {
        **versions(),
        "commit": commit(),
        "device": f"{device_name(str(device))}, {torch.get_num_threads()} threads",
        "precision": str(choose_precision("auto", device)).removeprefix("torch."),
        "digits": str(digits.resolve("auto")),
    }
    for name, backend in BACKENDS.items():
        missing = backend.unavailable()
        rows[f"deform_conv2d: {name}"] = f"no: {missing}" if missing else "yes"
    if instruction_sets():
        best, *others = instruction_sets()
        rows["deform_conv2d: cpu"] = f"yes, for {best}" + (f" (and {', '.join(others)})" if others else "")
    for name in models.names():
        model = models.create(name)
        total = sum(parameter.numel() for parameter in model.parameters())
        rows[name] = f"{total:,} parameters, {num_attention_parameters(model):,} of them for attention"
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    for name, value in rows.items():
        table.add_row(name, value)
    return table
