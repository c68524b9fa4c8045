"""The options of `saccade stream`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tyro.conf import Positional

from saccade.errors import UsageError
from saccade.stream.events import SMOOTHING_S

_HOST, _PORT = "127.0.0.1", 8090


@dataclass(frozen=True)
class StreamConfig:
    """Classify a stream as it comes: a camera, a network stream, a file or standard input.

    Args:
        source: a camera (its number, or a device such as /dev/video0), an address (rtsp, http, https, udp, tcp), a
            file, or - for standard input. Of a camera or a live network stream, frames for which the model is too slow
            are dropped. Of a file, of standard input and of a recording over HTTP, every frame is classified.
        model: a checkpoint, a run folder, or the name of a model whose weights come with the package.
        events: print events in place of predictions: a line where one begins, and a line where it has ended.
        min_confidence: the probability from which a verdict is sure, and at which an event begins. The default is that
            in the checkpoint.
        smoothing_s: for events: the time constant over which probabilities are averaged, in seconds.
        probabilities: print the probability of every class too.
        reset_on_cut: begin anew at each scene cut.
        realtime: play a file or a recording at its own rate, and take standard input as a live stream; frames for which
            the model is too slow are dropped.
        reconnect_s: how long to try to connect again to a source that has failed, in seconds; 0 ends at the first
            failure.
        device: auto, cpu or cuda.
        mjpeg: also show the stream in the browser: each frame with where the model looked, and the verdict.
        host: for mjpeg: the address to listen on. The default is reachable from this machine only.
        port: for mjpeg: the port to listen on; 0 selects a free port.

    Raises:
        UsageError: if a number is out of range, or there is a host or a port without mjpeg.
    """

    source: Positional[str]
    model: Path
    events: bool = False
    min_confidence: float | None = None
    smoothing_s: float = SMOOTHING_S
    probabilities: bool = False
    reset_on_cut: bool = False
    realtime: bool = False
    reconnect_s: float = 600.0
    device: str = "auto"
    mjpeg: bool = False
    host: str = _HOST
    port: int = _PORT

    def __post_init__(self) -> None:
        if self.min_confidence is not None and not 0 <= self.min_confidence <= 1:
            raise UsageError(f"min_confidence must lie in 0 to 1; got {self.min_confidence}")
        for name, value in (("smoothing_s", self.smoothing_s), ("reconnect_s", self.reconnect_s)):
            if not 0 <= value < float("inf"):
                raise UsageError(f"{name} must be at least 0 and finite; got {value}")
        if not 0 <= self.port <= 65535:
            raise UsageError(f"port must lie in 0 to 65535; got {self.port}")
        if not self.mjpeg and (self.host, self.port) != (_HOST, _PORT):
            raise UsageError("--host and --port say where --mjpeg shows the stream; add --mjpeg")
