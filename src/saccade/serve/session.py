"""The state of one page: its frames, temporal states and settings. Nothing in this module waits."""

from __future__ import annotations

import base64
import json
from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from saccade.data.digits import Digits
from saccade.serve import messages
from saccade.serve.camera import light_on_dark
from saccade.serve.engine import Engine, Memory
from saccade.serve.messages import MessageError
from saccade.serve.pace import Pace
from saccade.serve.sources import CameraSource, DigitSource, Picture, Source, VideoSource
from saccade.serve.turns import Work
from saccade.serve.upload import Decoded
from saccade.serve.verdict import is_right

MAX_UNSEEN = 2
"""The maximum number of frames sent but not yet shown: one being drawn and one in transit."""

# A page that shows no frame for this long is hidden or asleep, not slow.
_ASLEEP_S = 1.0


class Session:
    """The state of one page.

    Args:
        engine: the models.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._memory = Memory()
        self._shown = messages.Show(type="show", models=list(engine.models), saliency=[], clean=True)
        self._kind = "camera" if engine.digits is None else "digits"
        self._digits: DigitSource | None = None
        self._camera = CameraSource()
        self._video: VideoSource | None = None
        self._fps, self._pace = 25.0, Pace(25.0)
        self._frame_size: torch.Size | None = None
        self._paused, self._steps, self._stepped = False, 0, False
        self._sent = self._seen = 0
        self._dropped = self._skipped = 0

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
                self._steps = int(self._paused)
            case messages.Forget():
                self._memory.forget()
            case messages.Source(kind=kind):
                self._choose(kind)
            case messages.Seek(frame=frame):
                self._seek(frame)
            case messages.Show():
                self._show(message)
        return []

    def put_camera(self, data: bytes) -> None:
        """Accept a frame of the page's camera.

        Raises:
            MessageError: if the data is not a camera frame, or the frame does not have the size that the models expect.
        """
        wanted = self._engine.frame_format
        frame = torch.tensor(messages.parse_camera(data, wanted.channels)).permute(2, 0, 1)
        size = (frame.shape[-2], frame.shape[-1])
        if (fitting := wanted.fit(size)) != size:
            came, seen = ("{}x{}".format(*edges) for edges in (size, fitting))
            raise MessageError(f"a camera frame has {came} px, the models need {seen} px; resize it before sending")
        if self._kind == "camera":
            self._dropped += self._camera.put(frame)

    def put_video(self, decoded: Decoded) -> None:
        """Show a video; it replaces an earlier one."""
        frames = torch.frombuffer(decoded.pixels, dtype=torch.uint8).view(decoded.shape)
        self._video = VideoSource(frames, decoded.fps)
        self._begin_anew("video")

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
        return 0.0 if self._steps or self._kind == "camera" else self._pace.wait_s()

    def take_tick(self, waited_for_page_s: float) -> int:
        """Take the tick of the due frame; return the number of missed frames before it.

        Frames that the server missed are counted as dropped, frames that the page missed as skipped.
        """
        self._stepped = self._steps > 0
        if self._stepped or self._kind == "camera":
            self._steps = 0
            self._pace.restart()
            return 0
        if waited_for_page_s > _ASLEEP_S:
            self._pace.restart()
        missed = self._pace.tick()
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
            return json.dumps({"type": "ended"})
        frame = self._as_seen(picture.frame)
        if frame.shape != self._frame_size:
            # Temporal states depend on the size of frames.
            self._memory.forget()
            self._frame_size = frame.shape
        self._sent += 1
        seen = yield from self._see(frame, picture)
        return json.dumps(
            {
                "type": "frame",
                "number": self._sent,
                "source": self._kind,
                "size": list(frame.shape[-2:]),
                "channels": len(frame),
                "pixels": _base64(frame.permute(1, 2, 0)),
                "digits": picture.digits,
                "boxes": picture.box_px,
                "position": picture.position,
                "stepped": self._stepped,
                "models": seen,
                "dropped": self._dropped,
                "skipped": self._skipped,
            },
            separators=(",", ":"),
        )

    def close(self) -> None:
        """Release the frames and the temporal states."""
        self._memory.forget()
        self._digits = self._video = None
        self._camera = CameraSource()
        self._paused = True

    def _as_seen(self, frame: UInt8[Tensor, "channels height width"]) -> UInt8[Tensor, "channels height width"]:
        cleans = self._shown.clean and self._kind != "digits" and self._engine.digits is not None
        return light_on_dark(frame) if cleans else frame

    def _see(self, frame: UInt8[Tensor, "channels height width"], picture: Picture) -> Work[dict[str, Any]]:
        found = {}
        for name in dict.fromkeys(self._shown.models):  # each model once, even if the page names it repeatedly
            yield
            model = self._engine.models[name]
            seen = self._engine.see(model, frame, self._memory, saliency=name in self._shown.saliency)
            found[name] = {
                "look": seen.look,
                "probabilities": seen.probabilities,
                "verdict": asdict(seen.verdict),
                "right": is_right(seen.verdict.classes, picture.things, model.labels),
                "ms": round(seen.duration_ms, 1),
            }
        return found

    def _source(self) -> Source | None:
        return {"digits": self._digits, "camera": self._camera, "video": self._video}[self._kind]

    def _has_frames(self) -> bool:
        return self._camera.waiting if self._kind == "camera" else self._source() is not None

    def _rate(self) -> float:
        return self._video.fps if self._kind == "video" and self._video is not None else self._fps

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
        self._kind = kind
        self._camera = CameraSource()
        self._memory.forget()
        self._pace.fps = self._rate()

    def _forget_digits(self) -> None:
        if self._kind == "digits":
            self._memory.forget()

    def _pause(self, paused: bool) -> None:
        self._paused, self._steps = paused, 0
        if not paused and self._kind == "video" and self._video is not None and self._video.at_end:
            self._seek(0)
        self._pace.restart()

    def _choose(self, kind: str) -> None:
        if kind == "video" and self._video is None:
            raise MessageError("there is no video yet; upload one first")
        if kind == "digits":
            self._known_digits()
        self._begin_anew(kind)

    def _seek(self, frame: int) -> None:
        if self._video is None or self._kind != "video":
            raise MessageError("only a video can be moved to another frame; choose one first")
        self._video.position = min(frame, len(self._video.frames) - 1)
        self._memory.forget()
        self._pace.restart()

    def _show(self, show: messages.Show) -> None:
        for name in (*show.models, *show.saliency):
            if name not in self._engine.models:
                raise MessageError(f"there is no model {name[:40]!r}; choose from: {', '.join(self._engine.models)}")
        for name in self._engine.models.keys() - set(show.models):
            self._memory.states.pop(name, None)
        self._shown = show


def _base64(pixels: UInt8[Tensor, "..."]) -> str:
    return base64.b64encode(pixels.contiguous().numpy().tobytes()).decode("ascii")
