"""What attention brings: no attention, one map, offsets, and one to four glimpses.

All models learn from the same clips, the mixture of `recipes/mixture.sh`, for the same time on one core, or for as many
steps. Glimpses have the same parameters for any number of them. Start it twice with other --names to use two cores:
rows of one file come together. An interrupted call continues.

Usage: OMP_NUM_THREADS=1 python recipes/controls.py [--names glimpses-1 lenet-lstm ...] [--minutes 25] [--steps 13363]
[--seeds 0] [--digits-dir FOLDER]; rows go to runs/controls/table.csv
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import tyro

from saccade import console, run_folder
from saccade.data.digits import TRAINING, DigitsConfig
from saccade.evaluate import EvaluateConfig, append_rows, standard_test
from saccade.evaluate import run as evaluate
from saccade.train import TrainConfig, train

NAMES = ("glimpses-1", "glimpses-2", "glimpses-3", "glimpses-4", "lenet-lstm", "stn-lstm", "dcn-lstm")
CONDITIONS = ("normal", "rotation", "scaling", "rotation_scaling", "rotation_scaling", "rotation_scaling")
SHORT_FRACTION = 0.75


@dataclass(frozen=True)
class Options:
    """Which models, and how long.

    Args:
        names: glimpses-NUMBER for so many glimpses, or the name of a model.
        minutes: the training time of a model.
        steps: the number of steps of a model, in place of the time.
        seeds: the seeds.
        num_clips: the number of test clips of a condition.
        split: test or validation.
        digits_dir: the folder that is searched for MNIST.
        out: the folder of runs and rows.
    """

    names: tuple[str, ...] = NAMES
    minutes: float = 25.0
    steps: int | None = None
    seeds: tuple[int, ...] = (0,)
    num_clips: int = 2000
    split: str = "validation"
    digits_dir: Path | None = None
    out: Path = Path("runs/controls")


def main(options: Options) -> None:
    """Train and test the models one after the other."""
    data = replace(
        TRAINING, digits="mnist", digits_dir=options.digits_dir, condition=CONDITIONS, short_fraction=SHORT_FRACTION
    )
    for seed in options.seeds:
        for name in options.names:
            kind, _, num = name.partition("glimpses-")
            num_glimpses = int(num) if num else None
            config = TrainConfig(
                model=kind or "multi-stn-lstm",
                trunk="wide",
                num_glimpses=num_glimpses,
                minutes=None if options.steps else options.minutes,
                steps=options.steps,
                batch_size=8,
                seed=seed,
            )
            run = options.out / f"{name}-seed-{seed}"
            with console.training_bar(name) as progress:
                train(config, data, run, resume=run_folder.begun(run), progress=progress)
            for part in cast(DigitsConfig, standard_test(run, num_clips=options.num_clips)).parts():
                found = evaluate(EvaluateConfig(run, split=options.split, without_attention=False), part)
                append_rows(options.out / "table.csv", [found.row | {"num_glimpses": num_glimpses}])
                print(f"{name}, seed {seed}, {part.condition[0]}: {found.row['accuracy']:.4f}")


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
