"""The first message to a page: the models, the frames that they expect, and limits."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import saccade
from saccade.serve import upload
from saccade.serve.messages import FPS, MAX_POINTS, MAX_STROKES

if TYPE_CHECKING:
    from saccade.serve.engine import Engine


def hello(engine: Engine | None, token: str, *, teaches: bool) -> dict[str, Any]:
    """Return the first message.

    Args:
        engine: the models; None if there are none yet.
        token: the token of the page.
        teaches: whether the page may record clips and train.
    """
    return {
        "type": "hello",
        "version": saccade.__version__,
        "token": token,
        "models": [] if engine is None else _models(engine),
        "knows_digits": engine is not None and engine.digits is not None,
        "frame_format": None
        if engine is None
        else {name: getattr(engine.frame_format, name) for name in ("channels", "size", "fps")},
        "stream": None if engine is None or engine.broadcast is None else engine.broadcast.name,
        "teaches": teaches,
        "limits": {
            "fps": FPS,
            "upload_bytes": upload.MAX_UPLOAD_BYTES,
            "strokes": MAX_STROKES,
            "points": MAX_POINTS,
        },
    }


def _models(engine: Engine) -> list[dict[str, Any]]:
    return [
        {
            "name": model.name,
            "kind": model.kind,
            "classes": model.labels.names,
            "exclusive": model.labels.exclusive,
            "min_confidence": engine.min_confidence[model.name],
            "task": model.task,
            "attention": model.attention,
        }
        for model in engine.models.values()
    ]
