"""What the models of one page have seen: their temporal states, and the events that they have found."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor

from saccade.serve import messages
from saccade.serve.engine import Engine, Memory
from saccade.serve.found import Found
from saccade.serve.messages import MessageError
from saccade.serve.sources import Picture
from saccade.serve.turns import Work
from saccade.serve.verdict import is_right


class View:
    """The models of one page.

    Args:
        engine: the models.

    Attributes:
        memory: the temporal states.
        shown: the results that the page shows.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine, self.memory, self._found = engine, Memory(), Found(engine)
        self._frame_size: torch.Size | None = None
        self.shown = messages.Show(type="show", models=list(engine.models), saliency=[], clean=True)

    def show(self, show: messages.Show) -> None:
        """Choose the results that the page shows.

        Raises:
            MessageError: if there is no such model.
        """
        for name in (*show.models, *show.saliency):
            if name not in self._engine.models:
                raise MessageError(f"there is no model {name[:40]!r}; choose from: {', '.join(self._engine.models)}")
        for name in self._engine.models.keys() - set(show.models):
            self.memory.states.pop(name, None)
            self._found.reset(name)
        self.shown = show

    def forget(self) -> None:
        """Clear all temporal states; events that last end."""
        self.memory.forget()
        self._found.reset()

    def turn_away(self) -> None:
        """Begin anew with another source, of which earlier events say nothing."""
        self.memory.forget()
        self._found.clear()

    def see(self, frame: UInt8[Tensor, "channels height width"], picture: Picture) -> Work[dict[str, dict[str, Any]]]:
        """Run the models that are shown on a frame; return what each says of it. It yields before each model.

        Args:
            frame: the frame as the models see it.
            picture: where it comes from.
        """
        # Temporal states depend on the size of frames.
        if picture.begins or frame.shape != self._frame_size:
            self.forget()
            self._frame_size = frame.shape
        found = {}
        for name in dict.fromkeys(self.shown.models):  # each model once, even if the page names it repeatedly
            yield
            model = self._engine.models[name]
            seen = self._engine.see(model, frame, self.memory, saliency=name in self.shown.saliency)
            if picture.time_s is not None:
                self._found.push(name, picture.time_s, seen.probabilities)
            found[name] = {
                "look": seen.look,
                "probabilities": [round(p, 4) for p in seen.probabilities],
                "verdict": asdict(seen.verdict),
                "right": is_right(seen.verdict.classes, picture.things, model.labels),
                "ms": round(seen.duration_ms, 1),
            }
        return found

    def take_events(self) -> dict[str, list[dict[str, Any]]]:
        """Return the events of each model that have ended since the last call, and those that last now."""
        return self._found.take()
