"""Stub."""

from __future__ import annotations


def unavailable() -> str | None:
    return "not written yet"
