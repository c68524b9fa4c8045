"""The cells of a reproduction: train a model, test it in its conditions, write a row of results for each."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from saccade import checkpoint, files, foreign, run_folder
from saccade.data.digits import DATA, TRAINING, DigitsConfig
from saccade.device import choose_device
from saccade.errors import DataError
from saccade.evaluate import attention_effect, evaluate
from saccade.published import PublishedConfig
from saccade.published import run as run_published
from saccade.reproduce.presets import Training
from saccade.train import TrainConfig, train
from saccade.train.loop import Progress

# Clips of 50 frames: eight fill the processor and stay within a few hundred megabytes.
EVALUATION_BATCH = 8
# Stage 1 takes nearly all the time of the published protocol.
_STAGE_1 = 0.9
# Passes over the test clips: with attention, and with attention switched off.
NUM_PASSES = {"lenet-lstm": 1, "stn-lstm": 2, "dcn-lstm": 2}


@dataclass(frozen=True)
class Job:
    """A training, end to end or as published, with its configuration and its tests."""

    training: Training
    config: TrainConfig | PublishedConfig
    folder: Path
    digits: DigitsConfig = TRAINING
    num_clips: int = 0

    @property
    def row_files(self) -> list[Path]:
        """The path of the row of each of its cells, whether it exists or not."""
        return [row_file(self.folder, condition) for condition in self.training.tested_in]

    @property
    def test_steps(self) -> float:
        """The duration of its tests in training steps; a forward pass takes about a third of a step."""
        if isinstance(self.config, PublishedConfig):
            return 0.0
        num_frames = DigitsConfig().num_frames * self.num_clips * len(self.training.tested_in)
        step_frames = self.config.clips_per_step * self.digits.num_frames
        return NUM_PASSES[self.training.model] * num_frames / step_frames / 3

    def fraction(self, row: Mapping[str, float]) -> float:
        """Return the fraction of the job that is done, from a row of its progress."""
        if isinstance(self.config, PublishedConfig):
            return _STAGE_1 * row["step"] / row["num_steps"]
        num_steps = self.config.steps or 1
        tested = self.test_steps * row["clips"] / row["num_clips"] if "clips" in row else 0.0
        return (row.get("step", num_steps) + tested) / (num_steps + self.test_steps)

    @property
    def finished(self) -> bool:
        """Whether all its rows exist."""
        return all(path.is_file() for path in self.row_files)


def row_file(folder: Path, condition: str) -> Path:
    """Return the path of the row of a cell."""
    return folder / f"row-{condition}.json"


def read_rows(paths: Iterable[Path]) -> list[dict[str, Any]]:
    """Return the rows in files that `row_file` names.

    Raises:
        DataError: if a file is damaged.
    """
    rows = []
    for path in paths:
        try:
            # Rows of version 0.1 do not name their data, since there was only one kind.
            rows.append({"data": DATA} | dict(json.loads(path.read_text(encoding="utf-8"))))
        except foreign.UNREADABLE as error:
            raise DataError(f"{path} is damaged ({error}); remove it to test its cell again") from error
    return rows


def do(job: Job, progress: Progress) -> None:
    """Train and test, except for the parts that are done.

    `progress` gets the rows of training, then rows with the number of tested `clips` and the total `num_clips`.

    Raises:
        UsageError: if an existing checkpoint was trained on other digits.
        Interrupted: if the job is stopped; the training is saved.
        DataError: if a file cannot be read or written.
        NonFiniteError: if weights or results are NaN or infinite.
    """
    if job.finished:
        return
    if isinstance(job.config, PublishedConfig):
        (condition,) = job.training.tested_in
        row = run_published(job.config, job.folder.parent, progress=progress)
        files.write_json(row_file(job.folder, condition), row)
    else:
        _test(job, job.config, _trained(job, job.config, progress), progress)


def _trained(job: Job, config: TrainConfig, progress: Progress) -> Path:
    """Train the model of a job unless that is done, from the point where an earlier call stopped."""
    if (job.folder / run_folder.RUN).is_file() and run_folder.read(job.folder).get("finished"):
        return job.folder / checkpoint.NAME
    return train(config, job.digits, job.folder, resume=run_folder.begun(job.folder), progress=progress)


def _test(job: Job, config: TrainConfig, path: Path, progress: Progress) -> None:
    device = choose_device(config.device)
    model, header = checkpoint.load(path, device)
    digits = job.digits.load("test")
    run_folder.check_same(path.parent, {"digits": header.facts.get("digits")}, {"digits": digits.source})
    passes = NUM_PASSES[job.training.model]
    num_tests = passes * len(job.training.tested_in) * job.num_clips

    def counting(before: int) -> Callable[[int, int], None]:
        return lambda done, _total: progress({"clips": before + done, "num_clips": num_tests})

    for place, condition in enumerate(job.training.tested_in):
        if row_file(job.folder, condition).is_file():
            continue
        before = passes * place * job.num_clips
        standard = DigitsConfig(condition=(condition,), scheme=job.digits.scheme, num_clips=job.num_clips)
        clips = standard.drawn_from(digits, "test")
        how: dict[str, Any] = {"batch_size": EVALUATION_BATCH, "device": device, "precision": config.precision}
        result = evaluate(model, clips, **how, progress=counting(before))
        again = counting(before + job.num_clips)
        effect = attention_effect(model, clips, **how, progress=again, with_attention=result)
        row = result.row(
            model=header.model,
            protocol="end_to_end",
            seed=config.seed,
            trained_on=header.facts["condition"],
            trunk=config.trunk,
            steps=header.training["num_steps"],
            frames_per_step=config.clips_per_step * job.digits.num_frames,
            precision=header.training["precision"],
            minutes=round(header.training["elapsed_s"] / 60, 2),
            attention=effect,
        )
        files.write_json(row_file(job.folder, condition), row)
