"""Time the exported model for single frames in onnxruntime, beside the model in eager mode, on one thread.

python benchmarks/export.py [--turns 60] [--out benchmarks/results/export.json]

Both run in turn on one frame of 224x224 px. Processor time is measured, since a machine may have other work.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from saccade import checkpoint
from saccade.checkpoint import Header
from saccade.clips import FrameFormat
from saccade.export import METADATA, ExportConfig, export
from saccade.labels import Labels
from saccade.models.efficientnet import MEAN, STD
from saccade.run_folder import device_name

FRAMES = FrameFormat(3, size=(224, 224), mean=MEAN, std=STD)
LITE0 = {"trunk": "efficientnet-lite0", "temporal": "lstm"}
MODELS = {
    "lite0-memory": ("lite0-memory", {}),
    "efficientnet-lite0-lstm": ("classifier", LITE0),
    "efficientnet-lite0-dcn-lstm": ("classifier", LITE0 | {"attention": "dcn"}),
}


def times_ms(name, turns, folder):
    """Return the median processor time of a frame, in eager mode and in onnxruntime, and the largest difference."""
    kind, arguments = MODELS[name]
    torch.manual_seed(0)
    header = Header(kind, arguments, Labels(("a", "b", "c")), FRAMES)
    model = header.create_model().eval()
    checkpoint.save(folder / f"{name}.safetensors", model, header)
    exported = export(ExportConfig(folder / f"{name}.safetensors", folder / name))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(folder / name / "step.onnx", options, providers=["CPUExecutionProvider"])
    about = json.loads(session.get_modelmeta().custom_metadata_map[METADATA])
    shapes = [([1 if size == "batch" else size for size in part["shape"]], part) for part in about["states"]]
    state = {part["name"]: np.zeros(shape, part["dtype"]) for shape, part in shapes}
    frame = torch.randint(0, 256, (1, 3, 224, 224), dtype=torch.uint8)
    eager_state = model.initial_state(1, (224, 224))

    def eager():
        with torch.inference_mode():
            model.step(frame.unsqueeze(1), eager_state)

    runs = {"eager": eager, "onnxruntime": lambda: session.run(None, {"frame": frame.numpy(), **state})}
    found = {run: [] for run in runs}
    for turn in range(turns + 5):
        for run, call in runs.items():
            start = time.process_time()
            call()
            if turn >= 5:  # the first calls set up memory
                found[run].append(1000 * (time.process_time() - start))
    return {
        "model": name,
        **{run: statistics.median(values) for run, values in found.items()},
        "difference": exported.largest_difference,
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=60)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for name in MODELS:
            rows.append(times_ms(name, given.turns, Path(folder)))
            row = rows[-1]
            print(
                f"{name}: eager {row['eager']:.1f} ms, onnxruntime {row['onnxruntime']:.1f} ms,"
                f" {row['eager'] / row['onnxruntime']:.2f} times as fast",
                flush=True,
            )
    if given.out is not None:
        versions = {"torch": torch.__version__, "onnxruntime": onnxruntime.__version__}
        result = {"device": f"{device_name('cpu')}, 1 thread", "versions": versions, "rows": rows}
        given.out.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
