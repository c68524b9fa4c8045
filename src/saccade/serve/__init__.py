"""The live page: what each model sees in a camera, a video or moving digits, while it sees it."""

from saccade.serve.server import ServeConfig, serve

__all__ = ["ServeConfig", "serve"]
