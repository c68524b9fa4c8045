"""The tables of README and docs, rendered from the files under results/ and benchmarks/results/."""

from .pages import PAGES, RENDERERS, TABLE, rendered, write

__all__ = ["PAGES", "RENDERERS", "TABLE", "rendered", "write"]
