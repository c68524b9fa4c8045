"""A live page in the browser: where models look in a camera, a video or moving digits, and what they predict."""

from saccade.serve.server import ServeConfig, serve

__all__ = ["ServeConfig", "serve"]
