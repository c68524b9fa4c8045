"""What a report's page carries for its drawings: pixels, positions and probabilities, packed as text."""

from __future__ import annotations

import base64
import gzip
import json
from typing import Any

import numpy as np

from saccade.explain.explanation import Column, Explanation

SHOWN_FPS = 10.0
"""How fast a clip plays whose file does not say."""

_MAX_SHOWN_FPS = 240.0


def shown_fps(explanation: Explanation) -> float:
    """Return how fast the clip is shown; files may state rates that no screen has."""
    return min(max(explanation.fps or SHOWN_FPS, 0.1), _MAX_SHOWN_FPS)


def pack(explanation: Explanation) -> str:
    """Return everything that the page draws, as JSON, packed by gzip, in base64.

    In base64 nothing of a file's name or pixels can end the element that it stands in.
    """
    text = json.dumps(_described(explanation), separators=(",", ":"), allow_nan=False)
    # Without a time stamp the same report has the same bytes.
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode("ascii")


def _described(explanation: Explanation) -> dict[str, Any]:
    # Models mostly get the same frames, which then stand in the page once.
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
        "verdictProbabilities": [round(verdict.probability, 4) for verdict in column.verdicts],
        "decidedAt": column.prediction.decided_at,
        "looks": [_in_few_levels(column.look.frame_json(t)) for t in range(num_frames)],
        "boxes": None if column.boxes_px is None else column.boxes_px.tolist(),
    }


def _in_few_levels(drawn: dict[str, Any]) -> dict[str, Any]:
    """Round gradients to 32 levels: the eye sees no difference, and the page is half as large."""
    rounded = {}
    for name in ("saliency", "field"):
        if (picture := drawn[name]) is not None:
            levels = np.frombuffer(base64.b64decode(picture["grey"]), np.uint8)
            few = (levels // 8 * 8 + 7 * (levels >= 8)).astype(np.uint8)
            rounded[name] = picture | {"grey": base64.b64encode(few.tobytes()).decode("ascii")}
    return drawn | rounded
