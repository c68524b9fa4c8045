"""Short training runs, and what is asked of them."""

import signal
import struct

import numpy as np
import torch
from safetensors.torch import load_file

from saccade import checkpoint
from saccade.data.digits import DigitsConfig
from saccade.train import TrainConfig

MODELS = ("lenet-lstm", "stn-lstm", "dcn-lstm")
DIGITS = DigitsConfig(digits="uci", num_frames=6, frames_per_setting=2)


def config_of(**changes):
    """Six steps: of `DIGITS` three of 4-frame clips, three of 6-frame ones."""
    return TrainConfig(**{"steps": 6, "batch_size": 4, "precision": "float32"} | changes)


def stop_at(step, signum=signal.SIGINT):
    """Press Ctrl-C after a step."""

    def progress(row):
        if row["step"] == step:
            signal.raise_signal(signum)

    return progress


def tensors_of(out):
    return load_file(checkpoint.locate(out))


def assert_same_bits(first, second):
    one, other = tensors_of(first), tensors_of(second)
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert torch.equal(tensor, other[name]), name
    one, other = (checkpoint.read_header(out).training for out in (first, second))
    for name in ("step", "num_steps"):
        assert one[name] == other[name]


def write_digits(folder, levels):
    """Write the four files of a digit source: squares as bright as `levels` says for training and for test."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, brightness in zip(("train", "t10k"), levels, strict=True):
        images = np.zeros((len(brightness), 28, 28), np.uint8)
        images[:, 8:20, 8:20] = np.array(brightness, np.uint8)[:, None, None]
        (folder / f"{prefix}-images-idx3-ubyte").write_bytes(_idx(images))
        (folder / f"{prefix}-labels-idx1-ubyte").write_bytes(_idx(np.arange(len(brightness), dtype=np.uint8) % 10))


def _idx(values):
    return struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()
