"""Measure frames per second of reading videos into small RGB clips, beside plain PyAV and OpenCV.

All three decode every frame with one thread, and convert and shrink those that are kept at 15 frames/s. `decode only`
is PyAV without conversion; `cached` is a second reading through the cache. OpenCV takes part if it is installed. Run:

    python benchmarks/decoding.py [--videos FILE ...] [--turns 5]

Without --videos, a video of 1920x1080 px at 60 frames/s is made. The contenders alternate, and a ratio is that of the
medians of processor time. Writes benchmarks/results/decoding.json.
"""

from __future__ import annotations

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from av.video.reformatter import VideoReformatter
from rich.console import Console
from rich.table import Table

from saccade import files
from saccade.checkpoint import versions
from saccade.data.frame_cache import FrameCache
from saccade.data.video import describe, read_clip
from saccade.run_folder import commit, device_name

try:
    import cv2
except ImportError:
    cv2 = None

Size = tuple[int, int]
FPS, SHORT_SIDE_PX = 15.0, 160


def make_video(path: Path, num_frames: int = 120, size: Size = (1080, 1920), seed: int = 0) -> None:
    """Write a grainy picture that moves, as H.264 with frames between frames, as cameras and phones do."""
    grain = np.random.default_rng(seed).integers(0, 256, (size[0] // 8 + 1, size[1] // 8 + num_frames), np.uint8)
    picture = np.kron(grain, np.ones((8, 8), np.uint8))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=60, options={"preset": "veryfast", "crf": "28"})
        stream.height, stream.width, stream.pix_fmt = *size, "yuv420p"
        for index in range(num_frames):
            array = np.ascontiguousarray(picture[: size[0], 3 * index : 3 * index + size[1]])
            frame = av.VideoFrame.from_ndarray(array, format="gray").reformat(format="yuv420p")
            frame.pts, frame.time_base = index, Fraction(1, 60)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def decode_only(path: Path, _: Size) -> int:
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return sum(1 for _ in container.decode(video=0))


def plain_pyav(path: Path, size: Size) -> int:
    """Decode every frame; convert those at 15 frames/s, as a short script would."""
    kept, due, num, scaler = [], 0, 0, VideoReformatter()
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        for num, frame in enumerate(container.decode(video=0), start=1):  # noqa: B007
            if frame.time is None or frame.time * FPS >= due:
                due = math.floor((frame.time or 0.0) * FPS) + 1
                kept.append(scaler.reformat(frame, size[1], size[0], "rgb24", threads=1).to_ndarray())
    torch.from_numpy(np.stack(kept)).permute(0, 3, 1, 2).contiguous()
    return num


def opencv(path: Path, size: Size) -> int:
    cv2.setNumThreads(1)
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    step = video.get(cv2.CAP_PROP_FPS) / FPS
    kept, num = [], 0
    while video.grab():
        if num >= len(kept) * step:
            small = cv2.resize(video.retrieve()[1], size[::-1], interpolation=cv2.INTER_AREA)
            kept.append(cv2.cvtColor(small, cv2.COLOR_BGR2RGB))
        num += 1
    torch.from_numpy(np.stack(kept)).permute(0, 3, 1, 2).contiguous()
    return num


def ours(path: Path, size: Size) -> int:
    clip = read_clip(path, size=size, num_channels=3, fps=FPS)
    assert clip.source is not None
    return clip.source.num_frames


def cached(cache: FrameCache) -> Callable[[Path, Size], int]:
    def read(path: Path, size: Size) -> int:
        clip = cache.read(path, size=size, num_channels=3, fps=FPS)
        clip.frames.clone()  # they are mapped into memory, and read only here
        assert clip.source is not None
        return clip.source.num_frames

    return read


def measure(path: Path, readers: dict[str, Callable[[Path, Size], int]], num_turns: int) -> dict[str, float | str]:
    """Let the readers take turns, the first of which does not count; return median frames/s and ratios."""
    height, width = describe(path).size
    size = (round(height * SHORT_SIDE_PX / min(height, width)), round(width * SHORT_SIDE_PX / min(height, width)))
    rates: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(num_turns + 1):
        for name, read in readers.items():
            start = time.process_time()
            num_frames = read(path, size)
            rates[name].append(num_frames / (time.process_time() - start))
    medians = {name: statistics.median(several[1:]) for name, several in rates.items()}
    ratios = {f"ours/{name}": medians["ours"] / medians[name] for name in ("plain PyAV", "OpenCV") if name in medians}
    return {"video": path.name, "size": f"{height}x{width}"} | medians | ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=Path, nargs="+")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "decoding.json")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        videos = arguments.videos or [Path(folder) / "moving_grain.mp4"]
        if not arguments.videos:
            make_video(videos[0])
        readers = {"decode only": decode_only, "plain PyAV": plain_pyav, "ours": ours}
        readers |= {"OpenCV": opencv} if cv2 else {}
        readers |= {"cached": cached(FrameCache(Path(folder) / "cache", 10**9))}
        rows = [measure(path, readers, arguments.turns) for path in videos]
    device = f"{device_name('cpu')}, 1 thread"
    columns = dict.fromkeys(name for row in rows for name in row)
    table = Table(title=f"reading at {FPS:g} frames/s, short side {SHORT_SIDE_PX} px: frames decoded/s, {device}")
    for name in columns:
        table.add_column(name, justify="left" if name in ("video", "size") else "right")
    for row in rows:
        table.add_row(*(_cell(name, row.get(name, "")) for name in columns))
    Console(width=150).print(table)
    libraries = versions() | {"av": av.__version__} | ({"opencv": cv2.__version__} if cv2 else {})
    result = {"device": device, "versions": libraries, "commit": commit(), "turns": arguments.turns, "rows": rows}
    files.write_json(arguments.out, result)


def _cell(name: str, value: float | str) -> str:
    return value if isinstance(value, str) else f"{value:.2f}" if "/" in name else f"{value:,.0f}"


if __name__ == "__main__":
    main()
