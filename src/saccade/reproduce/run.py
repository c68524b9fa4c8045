"""Run the trainings of a reproduction, and write its tables and pictures as results arrive."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from saccade import files, run_folder
from saccade.data.digits import TRAINING, Digits, DigitsConfig
from saccade.device import choose_device
from saccade.errors import UsageError
from saccade.evaluate import write_rows
from saccade.processors import num_processors
from saccade.published import PublishedConfig
from saccade.reproduce import cells, pace, pool, table
from saccade.reproduce.cells import Job
from saccade.reproduce.forecast import Forecast
from saccade.reproduce.pictures import Pictures
from saccade.reproduce.presets import MIXTURE, PRESETS, Preset, ReproduceConfig, Training
from saccade.train import TrainConfig
from saccade.train.loop import Progress

# The part of the given minutes that is reserved for the last pictures.
PICTURES_S = 10.0
# The cost of a training step relative to that of the plain model, until it is measured.
COST = {"lenet-lstm": 1.0, "stn-lstm": 1.4, "dcn-lstm": 1.6}
PUBLISHED_COST = {"lenet-lstm": 1.0, "stn-lstm": 2.3, "dcn-lstm": 19.0}
# The cost of a cell of the published protocol relative to stage 1, which the first cell of a model does for all.
CELL_BESIDE_STAGE_1 = 0.05
Say = Callable[[str], None]


class _Reproduction:
    """A reproduction in progress."""

    def __init__(
        self,
        config: ReproduceConfig,
        say: Say,
        progress: Callable[[str], Progress],
        left: Callable[[float], None],
    ) -> None:
        self.config, self.say, self.left = config, say, left
        self.begin_bar = progress
        self.preset: Preset = PRESETS[config.preset]
        self.folder = config.folder
        self.cells = config.folder / "cells"
        self.started = time.monotonic()
        self.pictures = Pictures(config)
        self.cost = dict(PUBLISHED_COST if self.preset.protocol == "published" else COST)

    def run(self) -> None:
        trainings = self.config.trainings()
        steps = self.steps(trainings)
        jobs = [job for job in (self.job(training, steps) for training in trainings) if not job.finished]
        self.report()
        forecast = Forecast(self.work(jobs))
        bars: dict[int, Progress] = {}

        def take(number: int, row: dict[str, float]) -> None:
            if number not in bars:  # only at the first row, since a finished training has none
                bars[number] = self.begin_bar(jobs[number].training.name)
                forecast.begin(number, jobs[number].fraction(row))
            forecast.reach(number, jobs[number].fraction(row))
            if (seconds := forecast.left_s()) is not None:
                self.left(seconds)
            bars[number](row)

        def done(number: int, _nothing: None) -> None:
            forecast.reach(number, 1.0)
            for row in cells.read_rows(jobs[number].row_files):
                self.say(f"{row['model']} on {row['condition']}: accuracy {100 * row['accuracy']:.1f} %")
            self.report()

        pool.run_all(
            cells.do, jobs, num_processes=self.at_once(len(jobs)), take=take, done=done, tick=self.pictures.draw_curves
        )

    def work(self, jobs: list[Job]) -> list[float]:
        """Return the amount of work of each job, in any unit."""
        found, begun = [], set()
        for job in jobs:
            shares = self.preset.protocol == "published" and (job.training.model, job.training.seed) in begun
            begun.add((job.training.model, job.training.seed))
            found.append(self.cost[job.training.model] * (CELL_BESIDE_STAGE_1 if shares else 1.0))
        return found

    def at_once(self, num_jobs: int) -> int:
        """Return the number of trainings that run at the same time."""
        if self.preset.protocol == "published" or choose_device(self.config.device).type != "cpu":
            return min(self.config.jobs or 1, num_jobs)
        # Three trainings on two cores take turns, so that neither core waits long for the slowest one.
        return min(self.config.jobs or max(3, num_processors()), num_jobs)

    def steps(self, trainings: list[Training]) -> int | None:
        """Return the steps of every training: as configured, or as many as fit into the minutes, measured once."""
        steps, minutes = self.config.length
        if minutes is None:
            return steps
        if known := run_folder.read(self.folder).get("training_steps"):
            return int(known)
        jobs = [self.job(training, None) for training in trainings if training.seed == 0]
        self.say(f"timing {len(jobs)} models for a few seconds")
        measured: dict[int, pace.Pace] = {}
        at_once = self.at_once(len(jobs))
        asked = [(self.train_config(job.training), job.digits) for job in jobs]
        pool.run_all(pace.measure, asked, num_processes=at_once, take=lambda *_row: None, done=measured.__setitem__)
        paces = [measured[number] for number in range(len(jobs))]
        self.cost |= {job.training.model: one.work_s for job, one in zip(jobs, paces, strict=True)}
        seconds = 60 * minutes - (time.monotonic() - self.started) - PICTURES_S
        fitting = pace.steps_within(seconds, paces, [job.test_steps for job in jobs], at_once=at_once)
        run_folder.update(self.folder, training_steps=fitting)
        room = "fit into" if fitting > 1 else "take longer, with the tests, than the"
        self.say(f"{fitting} training steps for every model {room} {minutes:g} minutes here")
        return fitting

    def job(self, training: Training, steps: int | None) -> Job:
        folder = self.cells / training.name
        if self.preset.protocol == "published":
            return Job(training, self.published_config(training), folder)
        config = replace(self.train_config(training), steps=steps)
        return Job(
            training, config, folder, self.digits_config(training), self.config.num_clips or self.preset.num_clips
        )

    def train_config(self, training: Training) -> TrainConfig:
        return TrainConfig(
            model=training.model,
            batch_size=self.preset.batch_size,
            seed=training.seed,
            device=self.config.device,
            precision=self.config.precision or "auto",
        )

    def digits_config(self, training: Training) -> DigitsConfig:
        source = self.config.source
        return replace(TRAINING, digits=source.digits, digits_dir=source.digits_dir, condition=training.trained_on)

    def published_config(self, training: Training) -> PublishedConfig:
        asked = self.config
        return PublishedConfig(
            model=f"{training.model}-published",
            condition=training.trained_on[0],
            source=asked.source,
            instances=asked.instances or "training_clips",
            order=asked.order or "hidden",
            minutes=asked.stage1_minutes,
            retrainings=asked.retrainings or 300,
            seed=training.seed,
            device=asked.device,
        )

    def report(self) -> None:
        """Write the table and the pictures of the finished cells."""
        rows = cells.read_rows(sorted(self.cells.glob("*/row-*.json")))
        write_rows(self.folder / "table.csv", rows)
        files.write_text(self.folder / "table.md", table.markdown(rows))
        self.pictures.draw_curves(now=True)
        self.pictures.draw_looks()


def reproduce(
    config: ReproduceConfig,
    *,
    say: Say = print,
    progress: Callable[[str], Progress] | None = None,
    left: Callable[[float], None] = lambda seconds: None,
) -> Path:
    """Train and evaluate every cell, and write tables and pictures; return the run folder.

    The folder gets `samples.png` and a GIF per condition at the start, `curves.png` from the first minute on,
    `table.md`, `table.csv` and `attention.png` after each model, `run.json`, and a subfolder for each training. A
    second call does only the missing work. Trainings run in separate processes, so a script has to call this function
    under `if __name__ == "__main__":`.

    Args:
        config: the configuration of the reproduction.
        say: a function that is called with one line about each event.
        progress: a function that is called with the name of each training that starts; it returns a function that is
            called with the rows of its progress.
        left: a function that is called with the estimated seconds left.

    Raises:
        UsageError: if the folder holds a reproduction of another kind or of other digits, or another process writes
            to it.
        DataError: if digit files are missing or damaged.
        Interrupted: if Ctrl-C or SIGTERM stops it; running trainings are saved.
    """
    say(f"digits: {config.source.resolve()}")
    digits = config.source.load("train")
    with run_folder.held(config.folder):
        _open(config, digits)
        work = _Reproduction(config, say, progress or _silent, left)
        samples = work.pictures.draw_samples()
        is_published = work.preset.protocol == "published"
        growing = "" if is_published else "; training curves, from the first minute on: curves.png"
        say(f"sample clips: {samples}{growing}")
        work.run()
        run_folder.update(config.folder, finished=True)
    return config.folder


def _silent(_title: str) -> Progress:
    return lambda row: None


def _open(config: ReproduceConfig, digits: Digits) -> None:
    """Create the run folder, or check that an existing one holds the same kind of reproduction."""
    described = config.as_json() | {"trained_on": list(config.ways)}
    del described["source"]
    source = {"digits_source": digits.source, "digits_sha256": digits.sha256()}
    if not (config.folder / run_folder.RUN).is_file():
        run_folder.check_free(config.folder)
        run_folder.create(config.folder, "reproduce", described, device=str(choose_device(config.device)), **source)
        return
    # The folder, the device and the number of jobs may change; seeds and models may be added.
    free = {"out", "device", "jobs", "seeds", "models"}
    if MIXTURE not in config.ways:
        free |= {"conditions", "elastic"}  # other conditions would make another mixture
    found = run_folder.read(config.folder)
    if "trained_on" not in found["config"]:
        raise UsageError(
            f"{config.folder} holds a reproduction of an earlier version, which trained other models in another way;"
            " choose another --out"
        )
    before = found["config"] | {name: found.get(name) for name in source}
    run_folder.check_same(config.folder, before, {n: v for n, v in (described | source).items() if n not in free})
    run_folder.update(config.folder, finished=False, later_calls=[*found.get("later_calls", []), run_folder.call()])
