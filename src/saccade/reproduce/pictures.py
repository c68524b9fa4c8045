"""The pictures of a reproduction, drawn while it runs: samples, training curves, where each model looks."""

from __future__ import annotations

import time
from pathlib import Path

import torch
from torch import Tensor

from saccade import checkpoint, run_folder, visualize
from saccade.data import video_writing
from saccade.data.digits import Motion, MovingDigits
from saccade.device import choose_device
from saccade.reproduce import looks
from saccade.reproduce.cells import row_file
from saccade.reproduce.presets import PRESETS, ReproduceConfig, Training

DRAW_EVERY_S = 20.0
SAMPLE = 18


class Pictures:
    """The pictures of the first seed, and the parts of them that are drawn already."""

    def __init__(self, config: ReproduceConfig) -> None:
        self._config, self._folder = config, config.folder
        self._cells = config.folder / "cells"
        self._trainings = [training for training in config.trainings() if training.seed == 0]
        self._clips: dict[str, Tensor] = {}
        self._looks: dict[tuple[str, str], Tensor] = {}
        self._drawn_at = -DRAW_EVERY_S

    def draw_samples(self) -> Path:
        """Draw a sample clip of each condition: all as film strips in one picture, and each as a GIF."""
        digits = self._config.source.load("test")
        strips = {}
        for condition in self._config.all_conditions:
            clips = MovingDigits(digits, Motion(condition))
            frames = clips.batch(torch.tensor([SAMPLE])).frames[0]
            self._clips[condition] = frames
            strips[condition] = (frames[:, 0], clips.labels.names[SAMPLE])
            video_writing.write_gif(self._folder / f"{condition}.gif", frames, fps=10)
        visualize.draw_samples(path := self._folder / "samples.png", strips)
        return path

    def draw_curves(self, *, now: bool = False) -> None:
        """Draw the training curves, at most every `DRAW_EVERY_S` seconds unless `now` is set."""
        if not now and time.monotonic() - self._drawn_at < DRAW_EVERY_S:
            return
        runs: dict[str, dict[str, list[dict[str, float]]]] = {}
        for training in self._trainings:
            if log := run_folder.read_log(self._cells / training.name / run_folder.LOG):
                runs.setdefault(training.kind, {})[training.model] = log
        if runs:
            visualize.draw_curves(self._folder / "curves.png", runs, over="steps")
        self._drawn_at = time.monotonic()

    def draw_looks(self) -> None:
        """Draw where each model looks in the clip of each condition; each part is drawn once."""
        # Of two ways to train, only the first: a picture of both would be too long for comparisons.
        way = self._trainings[0].way
        for training in self._trainings:
            for condition in training.tested_in if training.way == way else ():
                key = (condition, training.model)
                if key not in self._looks and (strip := self._strip(training, condition)):
                    self._looks[key] = strip.picture()
        order = [(c, model) for c in self._config.all_conditions for model in self._config.models]
        if found := [self._looks[key] for key in order if key in self._looks]:
            video_writing.write_png(self._folder / "attention.png", torch.cat(found, 1))

    def _strip(self, training: Training, condition: str) -> visualize.LookStrip | None:
        """Return a strip of where a model looks; None if it is not tested yet, or its weights were removed."""
        cell, published = self._cells / training.name, PRESETS[self._config.preset].protocol == "published"
        weights = self._cells / f"stage1-{training.model}-published-seed0" if published else cell
        if not row_file(cell, condition).is_file() or not (weights / checkpoint.NAME).is_file():
            return None
        make = looks.published_strip if published else looks.end_to_end_strip
        return make(weights, training.model, condition, self._clips[condition], choose_device(self._config.device))
