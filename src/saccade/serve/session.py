"""The state of one page: its frames, temporal states and settings. Nothing in this module waits."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from saccade.data.digits import Digits
from saccade.serve import messages
from saccade.serve.camera import light_on_dark
from saccade.serve.engine import Engine
from saccade.serve.live_source import CameraSource, LiveSource, SharedSource
from saccade.serve.messages import MessageError
from saccade.serve.pace import Pace
from saccade.serve.sources import DigitSource, Source, VideoSource
from saccade.serve.turns import Work
from saccade.serve.upload import Decoded
from saccade.serve.view import View
from saccade.stream.waiting import LATE_S

MAX_UNSEEN = 2
"""The maximum number of frames sent but not yet shown: one being drawn and one in transit."""

# A page that shows no frame for this long is hidden or asleep, not slow.
_ASLEEP_S = 1.0


class Session:
    """The state of one page.

    Args:
        engine: the models.
        wake: called in any thread when there is news of the stream that all pages share.
    """

    def __init__(self, engine: Engine, wake: Callable[[], None] = lambda: None) -> None:
        self._engine, self._wake = engine, wake
        self._view = View(engine)
        self._kind = "camera" if engine.digits is None else "digits"
        self._run = 0
        self._digits: DigitSource | None = None
        self._live: LiveSource = CameraSource(engine.frame_format.fps)
        self._video: VideoSource | None = None
        self._video_fps = self._fps = 25.0
        self._pace = Pace(25.0)
        self._paused, self._steps, self._stepped = False, 0, False
        self._sent = self._seen = 0
        self._dropped = self._skipped = self._lost = 0
        self._waited_for_page_s = 0.0

    # --- Called with messages of the page

    def apply(self, message: messages.Message) -> list[dict[str, Any]]:
        """Apply a message; return the answers to the page.

        Raises:
            MessageError: if the message cannot take effect now; the state is then unchanged.
        """
        match message:
            case messages.Seen(number=number):
                self._seen = max(self._seen, min(number, self._sent))
            case messages.Start():
                self._digits = DigitSource(self._known_digits(), message)
                self._forget_digits()
                self._pace.restart()
            case messages.Change():
                if self._stream_of_digits().change(message):
                    self._forget_digits()
            case messages.Drawn() | messages.Picked():
                image = self._stream_of_digits().replace(message)
                self._forget_digits()
                return [{"type": "digit", "slot": message.slot, "image": _base64(image)}]
            case messages.Pace(fps=fps):
                self._fps = fps
                self._pace.fps = self._rate()
            case messages.Pause(paused=paused):
                self._pause(paused)
            case messages.Step():
                self._step()
            case messages.Forget():
                self._view.forget()
            case messages.Source(kind=kind):
                self._choose(kind)
            case messages.Seek(frame=frame):
                self._seek(frame)
            case messages.Show():
                self._view.show(message)
        return []

    def put_camera(self, data: bytes) -> None:
        """Accept a frame of the page's camera.

        Raises:
            MessageError: if the data is not a camera frame, or the frame does not have the size that the models expect.
        """
        wanted = self._engine.frame_format
        frame = messages.parse_camera(data, wanted.channels)
        size = (frame.pixels.shape[0], frame.pixels.shape[1])
        if (fitting := wanted.fit(size)) != size:
            came, seen = ("{}x{}".format(*edges) for edges in (size, fitting))
            raise MessageError(f"a camera frame has {came} px, the models need {seen} px; resize it before sending")
        if self._kind == "camera" and isinstance(self._live, CameraSource):
            self._live.put_stamped(torch.tensor(frame.pixels).permute(2, 0, 1), frame.time_s)

    def put_video(self, decoded: Decoded) -> None:
        """Show a video; it replaces an earlier one."""
        frames = torch.frombuffer(decoded.pixels, dtype=torch.uint8).view(decoded.shape)
        # Its frames are at the rate of the models, if they have one, however fast it plays.
        self._video = VideoSource(frames, self._engine.frame_format.fps or decoded.fps)
        self._video_fps = decoded.fps
        self._begin_anew("video")

    def take_line(self) -> str | None:
        """Return the next line about the stream for the page; return None if there is none."""
        return self._live.take_line()

    # --- Called by the stream

    @property
    def can_go(self) -> bool:
        """Whether a frame can be sent once it is due."""
        wanted = not self._paused or self._steps > 0
        return wanted and not self.waits_for_page and self._has_frames()

    @property
    def waits_for_page(self) -> bool:
        """Whether `MAX_UNSEEN` frames were sent but not yet shown."""
        return self._sent - self._seen >= MAX_UNSEEN

    def wait_s(self) -> float:
        """Return the seconds until the next frame is due."""
        return 0.0 if self._steps or self._is_live else self._pace.wait_s()

    def take_tick(self, waited_for_page_s: float) -> int:
        """Take the tick of the due frame; return the number of missed frames before it.

        Frames that the server missed are counted as dropped, frames that the page missed as skipped. Of a video at the
        rate of the models none is left out, since their answers depend on the rate: it plays more slowly.
        """
        self._stepped, self._waited_for_page_s = self._steps > 0, waited_for_page_s
        if self._stepped or self._is_live:
            self._steps = 0
            self._pace.restart()
            return 0
        if waited_for_page_s > _ASLEEP_S:
            self._pace.restart()
        missed = self._pace.tick()
        if missed and self._kind == "video" and self._engine.frame_format.fps:
            self._pace.delay()
            return 0
        by_page = min(missed, round(waited_for_page_s * self._pace.fps))
        self._skipped += by_page
        self._dropped += missed - by_page
        return missed

    def next_frame(self, missed: int) -> Work[str]:
        """Compute the frame after the missed ones and the results of the models; return the message for the page.

        This is slow. It yields before each model, so that other pages get their turns.
        """
        source = self._source()
        picture = None if source is None else source.next_picture(missed)
        if picture is None:
            self._paused = True
            self._view.forget()
            ended = {"type": "ended", "events": self._view.take_events(), "problem": self._live.problem}
            return json.dumps(ended)
        if self._is_live:
            self._count_lost()
            self._live.pause(self._paused)
        frame = self._as_seen(picture.frame)
        self._sent += 1
        seen = yield from self._view.see(frame, picture)
        message = {
            "type": "frame",
            "number": self._sent,
            "source": self._kind,
            "run": self._run,
            "time_s": None if picture.time_s is None else round(picture.time_s, 3),
            "size": list(frame.shape[-2:]),
            "channels": len(frame),
            "pixels": _base64(frame.permute(1, 2, 0)),
            "digits": picture.digits,
            "boxes": picture.box_px,
            "position": picture.position,
            "stepped": self._stepped,
            "models": seen,
            "events": self._view.take_events(),
            "dropped": self._dropped,
            "skipped": self._skipped,
        }
        return json.dumps(message, separators=(",", ":"))

    def close(self) -> None:
        """Release the frames and the temporal states, and leave the stream."""
        self._view.turn_away()
        self._digits = self._video = None
        self._begin_live("camera")
        self._paused, self._wake = True, lambda: None  # which held the page

    def _as_seen(self, frame: UInt8[Tensor, "channels height width"]) -> UInt8[Tensor, "channels height width"]:
        cleans = self._view.shown.clean and self._kind != "digits" and self._engine.digits is not None
        return light_on_dark(frame) if cleans else frame

    @property
    def _is_live(self) -> bool:
        return self._kind in ("camera", "stream")

    def _source(self) -> Source | None:
        if self._is_live:
            return self._live
        return self._digits if self._kind == "digits" else self._video

    def _has_frames(self) -> bool:
        if self._is_live:
            return self._live.has_frame or self._live.has_ended
        return self._source() is not None

    def _count_lost(self) -> None:
        """Count the frames of a live source that were left out: by the page, if it let the server wait."""
        lost, self._lost = self._live.dropped - self._lost, self._live.dropped
        if self._waited_for_page_s > LATE_S:
            self._skipped += lost
        else:
            self._dropped += lost

    def _rate(self) -> float:
        return self._video_fps if self._kind == "video" else self._fps

    def _known_digits(self) -> Digits:
        if self._engine.digits is None:
            raise MessageError("these models know no digits; choose camera or video")
        return self._engine.digits

    def _stream_of_digits(self) -> DigitSource:
        self._known_digits()
        if self._digits is None:
            raise MessageError("there is no stream of digits yet; send start first")
        return self._digits

    def _begin_anew(self, kind: str) -> None:
        self._kind, self._run = kind, self._run + 1
        self._view.turn_away()
        self._begin_live(kind)
        self._pace.fps = self._rate()

    def _begin_live(self, kind: str) -> None:
        """Take frames of the camera or of the stream from now on; leave what was before."""
        fps, broadcast, before = self._engine.frame_format.fps, self._engine.broadcast, self._live
        self._lost = 0
        if kind == "stream" and broadcast is not None:
            self._live = stream = SharedSource(fps, self._wake)
            # Before it leaves what was before: the reader goes on if that was the same stream.
            broadcast.enter(stream, self._engine.frame_format)
        else:
            self._live = CameraSource(fps)
        self._live.pause(self._paused)
        if broadcast is not None and isinstance(before, SharedSource):
            broadcast.leave(before)

    def _forget_digits(self) -> None:
        if self._kind == "digits":
            self._view.forget()

    def _pause(self, paused: bool) -> None:
        self._paused, self._steps = paused, 0
        self._live.pause(paused)
        if not paused and self._kind == "video" and self._video is not None and self._video.at_end:
            self._seek(0)
        if not paused and self._live.has_ended:
            self._begin_anew("stream")
        self._pace.restart()

    def _step(self) -> None:
        self._steps = int(self._paused)
        self._live.pause(False)  # until a frame has come

    def _choose(self, kind: str) -> None:
        if kind == "video" and self._video is None:
            raise MessageError("there is no video yet; upload one first")
        if kind == "stream" and self._engine.broadcast is None:
            raise MessageError("this server has no stream; start it with --source")
        if kind == "digits":
            self._known_digits()
        self._begin_anew(kind)

    def _seek(self, frame: int) -> None:
        if self._video is None or self._kind != "video":
            raise MessageError("only a video can be moved to another frame; choose one first")
        self._video.position = min(frame, len(self._video.frames) - 1)
        self._view.forget()
        self._pace.restart()


def _base64(pixels: UInt8[Tensor, "..."]) -> str:
    return base64.b64encode(pixels.contiguous().numpy().tobytes()).decode("ascii")
