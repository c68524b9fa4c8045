"""Run the cells of a reproduction, one after the other, and write what is known after each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saccade import checkpoint, files, run_folder, visualize
from saccade.data import digits as digit_sources
from saccade.data import video
from saccade.data.motion import Motion
from saccade.data.moving_digits import MovingDigits
from saccade.errors import UsageError
from saccade.evaluate import attention_effect, evaluate, write_rows
from saccade.precision import choose_device
from saccade.reproduce import looks, table
from saccade.reproduce.presets import PRESETS, SHARES, Preset, ReproduceConfig
from saccade.train import TrainConfig, train
from saccade.train.loop import Progress
from saccade.train.published import PublishedConfig
from saccade.train.published import run as run_published

ROW = "row.json"
# Clips of 50 frames: eight fill the processor and stay within a few hundred megabytes.
EVALUATION_BATCH = 8
WARM_UP_CONDITION = "rotation_scaling"
Say = Callable[[str], None]


class _Reproduction:
    """One reproduction on its way through the cells."""

    def __init__(self, config: ReproduceConfig, say: Say, progress: Callable[[str], Progress]) -> None:
        self.config, self.say, self.progress = config, say, progress
        self.preset: Preset = PRESETS[config.preset]
        self.folder = config.folder
        self.seeds = range(config.seeds or self.preset.num_seeds)
        self.steps, self.minutes = config.length
        self.clips: dict[str, Tensor] = {}
        self.looks: dict[tuple[str, str], Tensor] = {}

    def run(self) -> None:
        for seed in self.seeds:
            for model in self.config.models:
                for condition in self.config.all_conditions:
                    folder = self.cell(model, condition, seed)
                    if not (folder / ROW).is_file():
                        make = self.published_row if self.preset.protocol == "published" else self.end_to_end_row
                        row = make(model, condition, seed)
                        files.write_json(folder / ROW, row)
                        self.say(f"{model} on {condition}: accuracy {100 * row['accuracy']:.1f} %")
                    self.report()

    def cell(self, model: str, condition: str, seed: int) -> Path:
        return self.folder / "cells" / f"{model}-{condition}-seed{seed}"

    def warm_up(self, model: str, seed: int) -> Path:
        return self.folder / "cells" / f"{model}-warm-up-seed{seed}"

    def end_to_end_row(self, model: str, condition: str, seed: int) -> dict[str, Any]:
        base = TrainConfig(
            model=model,
            condition=condition,
            digits=self.config.digits,
            data_dir=self.config.data_dir,
            steps=self.steps,
            seed=seed,
            device=self.config.device,
        )
        if self.minutes is not None:
            base = self.sharing_a_warm_up(
                base, self.minutes * SHARES[model] / sum(SHARES[m] for m in self.config.models)
            )
        path = self.trained(self.cell(model, condition, seed), base)
        return self.measured(path, condition, seed)

    def sharing_a_warm_up(self, base: TrainConfig, minutes: float) -> TrainConfig:
        """Divide a model's minutes among its conditions, after a part that is trained once for all of them."""
        shared, own = minutes * self.preset.warm_up, minutes * (1 - self.preset.warm_up)
        own /= len(self.config.all_conditions)
        if not shared:
            return replace(base, minutes=own)
        warm_up = replace(base, condition=WARM_UP_CONDITION, minutes=shared)
        path = self.trained(self.warm_up(base.model, base.seed), warm_up)
        return replace(base, minutes=own, start_from=path, **FINE_TUNING)

    def trained(self, folder: Path, config: TrainConfig) -> Path:
        """Train into a folder unless that is done; go on where an earlier call stopped."""
        begun = (folder / run_folder.RUN).is_file()
        if begun and run_folder.read(folder).get("finished"):
            return folder / checkpoint.NAME
        return train(config, folder, resume=begun, progress=self.progress(folder.name))

    def measured(self, path: Path, condition: str, seed: int) -> dict[str, Any]:
        device = choose_device(self.config.device)
        model, header = checkpoint.load(path, device)
        digits = digit_sources.load(self.config.digits, "test", data_dir=self.config.data_dir)
        if header.data["digits"] != digits.source:
            raise UsageError(
                f"{path} was trained on {header.data['digits']}, now the digits are {digits.source}; give the same"
                " --digits and --data-dir as before, or choose another --out"
            )
        num_clips = self.config.num_clips or self.preset.num_clips
        clips = MovingDigits(digits, Motion(condition), labels=header.data["labels"], num_clips=num_clips)
        result = evaluate(model, clips, batch_size=EVALUATION_BATCH, device=device)
        effect = attention_effect(model, clips, batch_size=EVALUATION_BATCH, device=device, with_attention=result)
        return result.row(
            model=header.model,
            protocol="end_to_end",
            condition=condition,
            digits=digits.source,
            instances="disjoint",
            labels=header.data["labels"],
            seed=seed,
            steps=header.training["num_steps"],
            **header.training["before"],
            attention=effect,
        )

    def published_row(self, model: str, condition: str, seed: int) -> dict[str, Any]:
        asked = self.config
        config = PublishedConfig(
            model=f"{model}-published",
            condition=condition,
            digits=asked.digits,
            data_dir=asked.data_dir,
            instances=asked.instances or "training_clips",
            order=asked.order or "hidden",
            minutes=asked.stage1_minutes,
            retrainings=asked.retrainings or 300,
            seed=seed,
            device=asked.device,
        )
        return run_published(config, self.folder / "cells", progress=self.progress(f"{model} single digits"))

    def rows(self) -> list[dict[str, Any]]:
        found = sorted((self.folder / "cells").glob(f"*/{ROW}"))
        return [json.loads(path.read_text(encoding="utf-8")) for path in found]

    def report(self) -> None:
        """Write the table and the curves of what is finished so far."""
        rows = self.rows()
        write_rows(self.folder / "table.csv", rows)
        files.write_text(self.folder / "table.md", table.markdown(rows))
        runs: dict[str, dict[str, list[dict[str, float]]]] = {}
        for condition in self.config.all_conditions:
            for model in self.config.models:
                if log := self.log(model, condition):
                    runs.setdefault(condition, {})[model] = log
        if runs:
            over = "steps" if self.steps else "minutes"
            visualize.draw_curves(self.folder / "curves.png", runs, over=over)
        self.picture_looks()

    def log(self, model: str, condition: str) -> list[dict[str, float]]:
        """Return the log of a cell's training, with the warm-up that it started from before it."""
        rows = run_folder.read_log(self.cell(model, condition, 0) / run_folder.LOG)
        before = run_folder.read_log(self.warm_up(model, 0) / run_folder.LOG) if rows else []
        spent = before[-1]["elapsed_s"] if before else 0.0
        return before + [row | {"elapsed_s": row["elapsed_s"] + spent} for row in rows]

    def pictures(self) -> None:
        """Draw what the clips look like: a film strip a condition in one picture, and a GIF each."""
        digits = digit_sources.load(self.config.digits, "test", data_dir=self.config.data_dir)
        strips = {}
        for condition in self.config.all_conditions:
            clips = MovingDigits(digits, Motion(condition))
            frames = clips.batch(torch.tensor([18])).frames[0]
            self.clips[condition] = frames
            strips[condition] = (frames[:, 0], clips.labels.names[18])
            video.write_gif(self.folder / f"{condition}.gif", frames, fps=10)
        visualize.draw_samples(self.folder / "samples.png", strips)

    def picture_looks(self) -> None:
        """Draw what each model of the first seed makes of its condition's clip; each cell's part is drawn once."""
        for condition in self.config.all_conditions:
            for model in self.config.models:
                if (model, condition) not in self.looks and (strip := self.look_strip(model, condition)):
                    self.looks[model, condition] = strip.picture()
        order = [(model, condition) for condition in self.config.all_conditions for model in self.config.models]
        if found := [self.looks[key] for key in order if key in self.looks]:
            video.write_png(self.folder / "attention.png", torch.cat(found, 1))

    def look_strip(self, model: str, condition: str) -> visualize.LookStrip | None:
        """Return where a finished cell's model looks; None where there is no cell, or its weights were removed."""
        cell, published = self.cell(model, condition, 0), self.preset.protocol == "published"
        weights = self.folder / "cells" / f"stage1-{model}-published-seed0" if published else cell
        if not (cell / ROW).is_file() or not (weights / checkpoint.NAME).is_file():
            return None
        make = looks.published_strip if published else looks.end_to_end_strip
        return make(weights, model, condition, self.clips[condition], choose_device(self.config.device))


# Weights that know digits need neither short clips nor a high rate.
FINE_TUNING: dict[str, Any] = {"short_fraction": 0.0, "learning_rate": 1.5e-3}


def reproduce(config: ReproduceConfig, *, say: Say = print, progress: Callable[[str], Progress] | None = None) -> Path:
    """Train, evaluate, table and picture every cell; return the run folder.

    The folder gets `table.md`, `table.csv`, `curves.png`, `attention.png`, `samples.png`, a GIF a condition,
    `run.json`, and a folder of its own for each cell. All but `run.json` is rewritten after each cell; a second call
    goes on with the cells that are missing.

    Raises:
        UsageError: the folder holds a reproduction of another kind, or of other digits.
        DataError: digit files that are missing or damaged.
    """
    digits = digit_sources.load(config.digits, "train", data_dir=config.data_dir, say=say)
    _open(config, digits)
    work = _Reproduction(config, say, progress or _silent)
    work.pictures()
    work.run()
    run_folder.update(config.folder, finished=True)
    return config.folder


def _silent(_title: str) -> Progress:
    return lambda row: None


def _open(config: ReproduceConfig, digits: digit_sources.Digits) -> None:
    """Start the run folder, or check that the one there is of the same kind."""
    described = config.as_json()
    source = {"digits_source": digits.source, "digits_sha256": digits.sha256()}
    if not (config.folder / run_folder.RUN).is_file():
        run_folder.create(config.folder, "reproduce", described, device=str(choose_device(config.device)), **source)
        return
    # Where things lie and run may change, and cells may be added.
    free = {"out", "data_dir", "digits", "device", "seeds", "models", "conditions", "elastic"}
    _, minutes = config.length
    if minutes is not None:
        free -= {"models", "conditions", "elastic"}  # the minutes were divided among them
    found = run_folder.read(config.folder)
    before = found["config"] | {name: found.get(name) for name in source}
    for name, value in (described | source).items():
        if name not in free and before.get(name) != value:
            raise UsageError(
                f"{config.folder} holds a reproduction with {name}={before.get(name)}, not {value};"
                " choose another --out"
            )
    run_folder.update(config.folder, finished=False, later_calls=[*found.get("later_calls", []), run_folder.call()])
