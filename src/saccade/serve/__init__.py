"""A live page in the browser: where models look in a camera, a video or moving digits, and what they predict."""

from saccade.serve.config import ServeConfig
from saccade.serve.server import serve

__all__ = ["ServeConfig", "serve"]
