"""Measure training clips per second of `saccade train` and of a plain float32 NCHW loop with the same model and AdamW.

Both use the same batch size and threads, and generate their clips. `saccade train` runs in float32, and in bfloat16
where the processor gains from it. Run:

    python benchmarks/training.py [--steps 15]

Steps of the two alternate, and the ratio is that of the medians. Writes benchmarks/results/training.json.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.nn import functional as F

from saccade import files, models
from saccade.checkpoint import versions
from saccade.data.digits import TRAINING, DigitsConfig
from saccade.device import choose_precision
from saccade.run_folder import commit, device_name
from saccade.train import TrainConfig, end_to_end, loop


class PlainLoop:
    """A first, simple loop: float32, the default memory format, the generator called between two steps."""

    def __init__(self, config: TrainConfig, digits: DigitsConfig) -> None:
        self.model = models.create(config.model, labels=digits.labels).train()
        self.clips = digits.clips("train")
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, fused=True)
        self.batch_size, self.step = config.batch_size, 0

    def __call__(self) -> None:
        first = self.step * self.batch_size
        batch = self.clips.batch(torch.arange(first, first + self.batch_size))
        logits = self.model(batch.frames.float() / 255)
        loss = F.cross_entropy(logits.flatten(0, 1), batch.targets.repeat_interleave(logits.shape[1]))
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), end_to_end.MAX_GRADIENT_NORM)
        self.optimizer.step()
        self.step += 1


def measure(model: str, precision: str, num_steps: int) -> dict[str, float | str]:
    config = TrainConfig(model=model, steps=1000, precision=precision)
    digits = replace(TRAINING, digits="uci", short_fraction=0.0)
    trainer = end_to_end.start(config, digits)
    trainer.num_steps = 1000
    plain = PlainLoop(config, digits)
    seconds: dict[str, list[float]] = {"ours": [], "plain": []}
    shares = []
    for _ in range(num_steps + 2):
        started = time.perf_counter()
        shares.append(loop.advance(trainer)["generation_share"])
        seconds["ours"].append(time.perf_counter() - started)
        started = time.perf_counter()
        plain()
        seconds["plain"].append(time.perf_counter() - started)
    ours, other = (statistics.median(seconds[name][2:]) for name in ("ours", "plain"))
    return {
        "model": model,
        "precision": precision,
        "clips_per_s": config.batch_size / ours,
        "plain_clips_per_s": config.batch_size / other,
        "ratio": other / ours,
        "generation_share": statistics.median(shares[2:]),
        "step_s": ours,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "training.json")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    best = str(choose_precision("auto", torch.device("cpu"))).removeprefix("torch.")
    rows = [measure(m, p, arguments.steps) for p in dict.fromkeys(("float32", best)) for m in models.MATCHED]
    device = f"{device_name('cpu')}, {torch.get_num_threads()} threads"
    table = Table(title=f"training, {device}, torch {torch.__version__}, commit {commit()}")
    for name in ("model", "precision", "clips/s", "plain float32 NCHW", "ratio", "generation", "step to LeNet's"):
        table.add_column(name, justify="left" if name in ("model", "precision") else "right")
    for row in rows:
        first = next(one for one in rows if one["precision"] == row["precision"])
        table.add_row(
            str(row["model"]),
            str(row["precision"]),
            f"{row['clips_per_s']:.1f}",
            f"{row['plain_clips_per_s']:.1f}",
            f"{row['ratio']:.2f}",
            f"{100 * float(row['generation_share']):.1f} %",
            f"{float(row['step_s']) / float(first['step_s']):.2f}",
        )
    Console().print(table)
    result = {"device": device, "versions": versions(), "commit": commit(), "steps": arguments.steps, "rows": rows}
    files.write_json(arguments.out, result)


if __name__ == "__main__":
    main()
