"""Time models on a stream: from a raw frame of a camera to probabilities, one frame at a time, preprocessing included.

    python benchmarks/streaming.py [--turns 12] [--memory-frames 20000]

Decoding is not included. The models follow frames in torch (`saccade.stream.Classifier`) and exported to onnxruntime.
Where torchvision is installed (`make bench BENCHMARKS=benchmarks/streaming.py`), its r3d_18 predicts beside them from
the last 16 frames, the usual way. Each runs in a process of its own; they take turns.

Writes benchmarks/results/streaming.json.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import multiprocessing.connection
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import av
import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from saccade import checkpoint, files
from saccade.checkpoint import Header, versions
from saccade.clips import FrameFormat, Size
from saccade.data.pixels import Converter
from saccade.device import keep_freed_memory
from saccade.export import METADATA, ExportConfig, export
from saccade.labels import Labels
from saccade.models.efficientnet import MEAN, STD
from saccade.run_folder import commit, device_name
from saccade.stream import Classifier

try:
    import torchvision
except (ImportError, RuntimeError):  # beside a build of torch without CUDA it is there and does not load
    torchvision = None

Frame = NDArray[np.uint8]
Follow = Callable[[Frame], object]
Ask = Callable[[int], tuple[list[float], float]]

CAMERA = (480, 640)
WINDOW = "r3d_18, 16 frames"
CLASSES = Labels(tuple("abc"))
LITE0 = {"trunk": "efficientnet-lite0", "attention": "dcn", "temporal": "lstm"}
MODELS = {
    "dcn-lstm": Header("dcn-lstm", {}, CLASSES, FrameFormat(1, size=(64, 64))),
    "efficientnet-lite0-dcn-lstm": Header(
        "classifier", LITE0, CLASSES, FrameFormat(3, size=(224, 224), mean=MEAN, std=STD)
    ),
}
# Turns differ in length so that each takes about as long.
BLOCKS = {"dcn-lstm": 100, "efficientnet-lite0-dcn-lstm": 20, WINDOW: 2}


class InTorch:
    """A checkpoint, followed by `saccade.stream.Classifier`."""

    def __init__(self, path: Path) -> None:
        self.classifier, self.num_frames = Classifier(path, device="cpu"), 0

    def __call__(self, frame: Frame) -> object:
        self.num_frames += 1
        return self.classifier.push(frame, self.num_frames / 25).probabilities


class InOnnxruntime:
    """An exported model for single frames."""

    def __init__(self, path: Path, num_threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = num_threads
        self.session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.about = json.loads(self.session.get_modelmeta().custom_metadata_map[METADATA])
        frames = self.about["frames"]
        self.convert = Converter((frames["height"], frames["width"]), frames["channels"])
        self.state = {
            part["name"]: np.zeros([1 if size == "batch" else size for size in part["shape"]], part["dtype"])
            for part in self.about["states"]
        }

    def __call__(self, frame: Frame) -> object:
        pixels = self.convert(av.VideoFrame.from_ndarray(frame, format="gray" if frame.ndim == 2 else "rgb24"))
        found = self.session.run(None, {self.about["frames"]["name"]: pixels[None], **self.state})
        outputs = dict(zip(self.about["outputs"], found, strict=True))
        self.state = {part["name"]: outputs[part["next"]] for part in self.about["states"]}
        return outputs["probabilities"][0].tolist()


class Window:
    """torchvision's r3d_18 on the last 16 frames of 112x112 px."""

    def __init__(self) -> None:
        self.model = torchvision.models.video.r3d_18(num_classes=3).eval()
        self.convert = Converter((112, 112), 3)
        self.mean, self.std = (torch.tensor(v).view(3, 1, 1) for v in ((0.43, 0.39, 0.38), (0.23, 0.22, 0.22)))
        self.frames: deque[torch.Tensor] = deque(maxlen=16)

    @torch.inference_mode()
    def __call__(self, frame: Frame) -> object:
        pixels = torch.from_numpy(self.convert(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        self.frames.append((pixels / 255 - self.mean) / self.std)
        missing = 16 - len(self.frames)
        window = torch.stack([self.frames[0]] * missing + list(self.frames), 1)
        return self.model(window[None]).softmax(-1)[0].tolist()


def prepare(folder: Path) -> None:
    """Write a checkpoint and an export of each model."""
    for name, header in MODELS.items():
        torch.manual_seed(0)
        model = header.create_model()
        assert isinstance(model, torch.nn.Module)
        checkpoint.save(folder / f"{name}.safetensors", model, header)
        export(ExportConfig(folder / f"{name}.safetensors", folder / name))


def kinds() -> list[tuple[str, str, Size]]:
    """Return what is measured: model, runtime, and height and width of the camera's frames."""
    found: list[tuple[str, str, Size]] = []
    for name, header in MODELS.items():
        assert header.frame_format is not None
        assert header.frame_format.size is not None
        found += [(name, run, size) for size in (header.frame_format.size, CAMERA) for run in ("torch", "onnxruntime")]
    return [*found, (WINDOW, "torch", CAMERA)] if torchvision is not None else found


def follower(kind: tuple[str, str, Size], folder: Path, num_threads: int) -> Follow:
    """Return what follows a stream."""
    name, runtime, _ = kind
    if name == WINDOW:
        return Window()
    if runtime == "torch":
        return InTorch(folder / f"{name}.safetensors")
    return InOnnxruntime(folder / name / "step.onnx", num_threads)


def serve(
    connection: multiprocessing.connection.Connection, kind: tuple[str, str, Size], folder: Path, num_threads: int
) -> None:
    """Follow as many frames as are asked for, and send back the time of each and the memory of this process."""
    keep_freed_memory()  # as the command line does
    torch.set_num_threads(num_threads)
    follow = follower(kind, folder, num_threads)
    is_grey = kind[0] == "dcn-lstm" and kind[2] != CAMERA
    frame = np.random.default_rng(0).integers(0, 256, kind[2] if is_grey else (*kind[2], 3), dtype=np.uint8)
    while num_frames := connection.recv():
        times_ms = []
        for _ in range(num_frames):
            start = time.perf_counter()
            follow(frame)
            times_ms.append(1000 * (time.perf_counter() - start))
        connection.send((times_ms, resident_mib()))


@contextmanager
def followers(folder: Path, num_threads: int) -> Iterator[dict[tuple[str, str, Size], Ask]]:
    """Start a process of its own for each, since the threads of one library wait busily for a while after its work."""
    context = multiprocessing.get_context("spawn")
    ours = {}
    with ExitStack() as stack:
        for kind in kinds():
            mine, other = context.Pipe()
            process = context.Process(target=serve, args=(other, kind, folder, num_threads))
            process.start()
            stack.callback(process.join)
            stack.callback(mine.send, 0)
            ours[kind] = mine

        def ask(kind: tuple[str, str, Size], num_frames: int) -> tuple[list[float], float]:
            ours[kind].send(num_frames)
            answer: tuple[list[float], float] = ours[kind].recv()
            return answer

        yield {kind: partial(ask, kind) for kind in ours}


def resident_mib() -> float:
    """Return the memory of this process."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--memory-frames", type=int, default=20_000, help="frames of 64x64 px followed for memory")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "streaming.json")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        prepare(Path(folder))
        with followers(Path(folder), given.threads) as asked:
            times_ms: dict[tuple[str, str, Size], list[float]] = {kind: [] for kind in asked}
            for turn in range(given.turns + 1):
                for kind, ask in asked.items():
                    found, _ = ask(BLOCKS[kind[0]])
                    times_ms[kind] += found if turn else []  # the first turn sets up memory
            rows = [row(kind, values) for kind, values in times_ms.items()]
            memory = [
                {"runtime": runtime, **memory_of(asked["dcn-lstm", runtime, (64, 64)], given.memory_frames)}
                for runtime in ("torch", "onnxruntime")
            ]
    report(rows, memory, given)


def row(kind: tuple[str, str, Size], values_ms: list[float]) -> dict[str, float | str]:
    """Return the row of a model."""
    p50, p99 = statistics.median(values_ms), statistics.quantiles(values_ms, n=100)[98]
    model, runtime, (height, width) = kind
    about = {"model": model, "runtime": runtime, "frame": f"{height}x{width}"}
    return about | {"p50_ms": p50, "p99_ms": p99, "per_s": 1000 / p50}


def memory_of(ask: Ask, num_frames: int) -> dict[str, float]:
    """Return the memory after a tenth of the frames, and after all."""
    first = max(1, num_frames // 10)
    _, before = ask(first)
    _, after = ask(num_frames - first)
    return {"num_frames": num_frames, "after_a_tenth_mib": before, "after_all_mib": after}


def report(rows: list[dict[str, float | str]], memory: list[dict[str, float | str]], given: argparse.Namespace) -> None:
    """Print the tables and write the file."""
    device = f"{device_name('cpu')}, {given.threads} threads"
    table = Table(title=f"from a raw frame to probabilities, batch 1, {device}")
    for name in ("model", "runtime", "frame", "p50 ms", "p99 ms", "per second"):
        table.add_column(name, justify="left" if name in ("model", "runtime", "frame") else "right")
    for one in rows:
        figures = (f"{one['p50_ms']:.2f}", f"{one['p99_ms']:.2f}", f"{one['per_s']:.1f}")
        table.add_row(str(one["model"]), str(one["runtime"]), str(one["frame"]), *figures)
    console = Console(width=120)
    console.print(table)
    for one in memory:
        console.print(
            f"dcn-lstm, {one['runtime']}: {one['after_a_tenth_mib']:.1f} MiB after a tenth of"
            f" {one['num_frames']} frames, {one['after_all_mib']:.1f} MiB after all"
        )
    libraries = versions() | {"onnxruntime": onnxruntime.__version__}
    libraries |= {"torchvision": torchvision.__version__} if torchvision is not None else {}
    result = {"device": device, "versions": libraries, "commit": commit(), "turns": given.turns}
    files.write_json(given.out, result | {"rows": rows, "memory": memory})


if __name__ == "__main__":
    main()
