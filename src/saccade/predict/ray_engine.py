"""The engine for a cluster: Ray Data, whose actors each hold the model."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from saccade.errors import UsageError
from saccade.predict.bulk import Predictor, lost
from saccade.predict.parquet import Done, Output, Part
from saccade.predict.processes import Isolated


class Maker:
    """What an actor does: it makes whole parts, and holds the model in a process of its own, which a clip may end."""

    work: Predictor
    out: Output

    def __init__(self) -> None:
        self._predict = Isolated(self.work, lost)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[int]]:
        """Make the parts of a batch."""
        parts = [Part(told["number"], tuple(told["clips"])) for told in map(json.loads, batch["part"])]
        done = [self.out.write(part, [self._predict(clip) for clip in part.clips]) for part in parts]
        return {name: [getattr(one, name) for one in done] for name in ("number", "num_clips", "num_failed")}


def each(parts: Sequence[Part], work: Predictor, out: Output, *, num_workers: int | None) -> Iterator[Done]:
    """Make some parts on the cluster that the environment names, or on this machine; yield each once it is written.

    Ray starts an actor that was lost anew, and gives its part to another.

    Args:
        parts: the parts.
        work: what a worker does.
        out: where the parts are written.
        num_workers: the largest number of actors; None for one per processor of the cluster, or per GPU.

    Raises:
        UsageError: if no machine of the cluster has the memory that an actor declares.
    """
    if not parts:
        return
    import ray

    # Arguments of a constructor would lie in the store of objects, and an actor that starts anew could miss them.
    maker = type("Maker", (Maker,), {"work": work, "out": out})
    unit = "GPU" if work.device.type == "cuda" else "CPU"
    told = [{"part": json.dumps({"number": part.number, "clips": part.clips})} for part in parts]
    with _connected():
        _check_memory(work.memory_bytes or 0)
        made = ray.data.from_items(told, override_num_blocks=len(parts)).map_batches(
            maker,
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(min_size=1, max_size=min(num_workers or _num_there(unit), len(parts))),
            num_cpus=1,
            num_gpus=1 if unit == "GPU" else 0,
            memory=work.memory_bytes,
        )
        for row in made.iter_rows():
            yield Done(int(row["number"]), int(row["num_clips"]), int(row["num_failed"]))


def _num_there(unit: str) -> int:
    """Return how many processors or GPUs the machines of the cluster have together."""
    import ray

    resources: Callable[[], dict[str, float]] = ray.cluster_resources  # it has no types
    return max(1, int(resources().get(unit, 1)))


def _check_memory(wanted: int) -> None:
    """Compare the memory of an actor with that of the machines that are there; Ray would wait for a larger one."""
    import ray

    nodes: Callable[[], list[dict[str, Any]]] = ray.nodes  # it has no types
    most = max((node["Resources"].get("memory", 0) for node in nodes() if node["Alive"]), default=0)
    if wanted > most:
        raise UsageError(
            f"an actor is to have {wanted / 1e9:g} GB (--memory-gb), and the largest machine of the cluster offers"
            f" {most / 1e9:.1f} GB; lower --memory-gb, or add a larger machine"
        )


@contextmanager
def _connected() -> Iterator[None]:
    """Connect to Ray, quietly; disconnect at the end unless the caller had connected before."""
    import ray

    if ray.is_initialized():
        yield
        return
    ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()
