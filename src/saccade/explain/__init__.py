"""The command `saccade explain`: where models look in a clip, as a page, an animation or a film strip."""

from saccade.explain.command import explain
from saccade.explain.config import FORMATS, ExplainConfig
from saccade.explain.explanation import Column, Explanation, explain_clip
from saccade.explain.most_wrong import each_with_page, wrong_clips

__all__ = [
    "FORMATS",
    "Column",
    "ExplainConfig",
    "Explanation",
    "each_with_page",
    "explain",
    "explain_clip",
    "wrong_clips",
]
