"""Measure how often a verdict above a confidence is right, to choose `saccade serve --min-confidence`.

The frames are the page's own at its first settings: digits drawn with strokes, two at a time, none seen in training.
Models follow each stream as they do there; verdicts count from the eleventh frame on.

Usage: python recipes/confidence.py [CHECKPOINT ...]; by default the matched three of the package.
"""

import sys
from pathlib import Path
from typing import cast

import torch

from saccade import checkpoint, weights
from saccade.data import digits
from saccade.data.digits import DigitStream
from saccade.models import VideoClassifier
from saccade.serve.verdict import is_right, verdict_of

NUM_STREAMS, NUM_FRAMES, NUM_FIRST = 60, 150, 10
THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)


def main(paths: list[Path]) -> None:
    """Print for each model, by threshold: frames with a verdict, and the part of these verdicts that is right."""
    source = digits.load("strokes", "test")
    streams = [DigitStream(source, seed=seed) for seed in range(NUM_STREAMS)]
    clips = torch.stack([torch.stack([s.next_frame()[0] for _ in range(NUM_FRAMES)]) for s in streams])
    for path in paths:
        loaded, _ = checkpoint.load(path)
        model = cast(VideoClassifier, loaded)
        with torch.inference_mode():
            logits = torch.cat([model.step(clip.unsqueeze(0), None)[0] for clip in clips])[:, NUM_FIRST:]
        verdicts = [[verdict_of(frame, model.labels, 0.0) for frame in of_stream] for of_stream in logits]
        said = [
            (verdict.confidence, bool(is_right(verdict.classes, list(map(str, stream.digits_shown)), model.labels)))
            for stream, of_stream in zip(streams, verdicts, strict=True)
            for verdict in of_stream
        ]
        print(f"{path.stem}: {len(said)} frames of {NUM_STREAMS} streams, {mean([right for _, right in said])} right")
        for least in THRESHOLDS:
            sure = [right for confidence, right in said if confidence >= least]
            part = 100 * len(sure) / len(said)
            print(f"  from {100 * least:.0f} %: a verdict in {part:.1f} %, {mean(sure)} of them right")


def mean(found: list[bool]) -> str:
    """Return the part that is true, in percent."""
    return f"{100 * sum(found) / len(found):.1f} %" if found else "none"


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]] or list(weights.matched().values()))
