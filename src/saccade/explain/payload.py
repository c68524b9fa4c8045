"""The data in a report's page for its drawings: pixels, positions and probabilities, packed as text."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import numpy as np

from saccade.explain.explanation import Column, Explanation

SHOWN_FPS = 10.0
"""The frame rate at which a clip plays if its file does not state one."""

_MAX_SHOWN_FPS = 240.0


def shown_fps(explanation: Explanation) -> float:
    """Return the frame rate at which the clip plays, within limits: a file may state a rate that no screen supports."""
    return min(max(explanation.fps or SHOWN_FPS, 0.1), _MAX_SHOWN_FPS)


def pack(explanation: Explanation) -> str:
    """Return everything that the page draws as JSON, compressed by gzip and encoded in base64.

    In base64, no file name or pixel data can close the element that contains it.
    """
    text = json.dumps(_described(explanation), separators=(",", ":"), allow_nan=False)
    # Without a time stamp the same report has the same bytes.
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def _described(explanation: Explanation) -> dict[str, Any]:
    # Most models receive the same frames; the page stores equal frames once.
    frames = [column.clip.frames.numpy() for column in explanation.columns]
    pixels = [base64.b64encode(f.transpose(0, 2, 3, 1).tobytes()).decode("ascii") for f in frames]
    strips = list(dict.fromkeys(pixels))
    truth = explanation.truth
    return {
        "numFrames": explanation.num_frames,
        "fps": explanation.fps,
        "shownFps": shown_fps(explanation),
        "strips": strips,
        "truth": [str(digit) for digit in truth.digits] if truth else None,
        "columns": [
            _column(column, strips.index(strip)) for column, strip in zip(explanation.columns, pixels, strict=True)
        ],
    }


def _column(column: Column, strip: int) -> dict[str, Any]:
    num_frames = len(column.clip.frames)
    return {
        "name": column.name,
        "colour": column.colour,
        "strip": strip,
        "size": list(column.frame_size),
        "names": list(column.labels.names),
        "probabilities": [[round(p, 4) for p in row] for row in column.probabilities.tolist()],
        "verdicts": [verdict.name for verdict in column.verdicts],
        "sure": column.sure,
        "verdictProbabilities": [round(verdict.probability, 4) for verdict in column.verdicts],
        "decidedAt": column.prediction.decided_at,
        "threshold": column.min_confidence if column.labels.exclusive else None,
        "looks": [_in_few_levels(column.look.frame_json(t)) for t in range(num_frames)],
        "boxes": None if column.boxes_px is None else column.boxes_px.tolist(),
    }


def _in_few_levels(drawn: dict[str, Any]) -> dict[str, Any]:
    """Round gradients to 64 levels, which makes the page smaller without a visible difference."""
    rounded = {}
    for name in ("saliency", "field"):
        if (picture := drawn[name]) is not None:
            levels = np.frombuffer(base64.b64decode(picture["grey"]), np.uint8)
            few = (levels // 4 * 4 + 3 * (levels >= 4)).astype(np.uint8)
            rounded[name] = picture | {"grey": base64.b64encode(few.tobytes()).decode("ascii")}
    return drawn | rounded
