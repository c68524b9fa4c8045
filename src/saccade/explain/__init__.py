"""The command `saccade explain`: where models look in a clip, as a page, an animation or a film strip."""

from saccade.explain.command import explain
from saccade.explain.config import FORMATS, ExplainConfig
from saccade.explain.explanation import Column, Explanation, explain_clip

__all__ = ["FORMATS", "Column", "ExplainConfig", "Explanation", "explain", "explain_clip"]
