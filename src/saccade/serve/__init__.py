"""The live page: what each model sees in moving digits, a camera or a video, while it sees it."""

from saccade.serve.server import ServeConfig, serve

__all__ = ["ServeConfig", "serve"]
