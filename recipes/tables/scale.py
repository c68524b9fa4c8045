"""Tables of docs/scale.md: what a clip of a large collection costs, and what several processes bring."""

import json
from pathlib import Path
from typing import Any

from .layout import table

TEN_MILLION = 10_000_000
_MS_PER_HOUR = 3.6e6
_READ = {"decode only": "the decoder alone", "file": "from its own file", "archive": "from an archive"}


def reading(path: Path) -> str:
    """Show what a clip costs that training reads, beside the decoder alone."""
    found = _read(path)["reading_ms"]
    lines = [[name, f"{found[key]:.1f}", f"{found['decode only'] / found[key]:.0%}"] for key, name in _READ.items()]
    return table(["a clip is read", "ms of one core", "speed, as a share of the decoder's"], lines)


def naming(path: Path) -> str:
    """Show what a clip costs that each engine names, with two workers, and what the start of the engine does."""
    found = _read(path)["naming"]
    local = found["local"]["ms_per_clip"]
    lines = [
        [engine, f"{one['ms_per_clip']:.1f}", f"{one['ms_per_clip'] - local:+.1f}", f"{one['start_s']:.0f}"]
        for engine, one in found.items()
    ]
    return table(["engine", "ms a clip", "more than the local engine, ms a clip", "start, s"], lines)


def ten_million(path: Path) -> str:
    """Show how many hours ten million such clips take: of one core to read, of the whole machine to name."""
    found = _read(path)
    cores = found["processors"]
    once = TEN_MILLION * found["reading_ms"]["archive"] / _MS_PER_HOUR
    lines = [["read once from archives, as before the first step of a training", _hours(once), _hours(once / cores)]]
    for engine, one in found["naming"].items():
        hours = TEN_MILLION * one["ms_per_clip"] / _MS_PER_HOUR
        lines.append([f"predicted with {found['model']}, engine {engine}", _hours(hours * cores), _hours(hours)])
    return table(["ten million clips", "hours of one core", f"of a machine with {cores} cores"], lines)


def processes(path: Path) -> str:
    """Show clips a second of threads and of processes, and how much two processes send in a step."""
    found = _read(path)
    kinds = list(next(iter(found["clips_per_s"].values())))
    lines = []
    for model, rates in found["clips_per_s"].items():
        sent = f"{found['bytes_per_step'][model] / 1e6:.1f}"
        lines.append([model, f"{found['parameters'][model]:,}", *(f"{rates[kind]:.0f}" for kind in kinds), sent])
    return table(["model", "parameters", *(f"{kind}, clips/s" for kind in kinds), "MB a step over the network"], lines)


def _hours(hours: float) -> str:
    return f"{hours:,.0f}"


def _read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
