"""Keep of a checkpoint what is needed to use it: weights and header, not the optimiser's state.

Usage: python recipes/pack_weights.py RUN FILE.safetensors
"""

import sys
from dataclasses import replace
from pathlib import Path

from saccade import checkpoint


def pack(run: Path, target: Path) -> None:
    """Write the packed checkpoint, without the paths of the machine that it was trained on."""
    model, header = checkpoint.load(run)
    config = {
        name: value for name, value in header.training["config"].items() if name not in ("data_dir", "start_from")
    }
    checkpoint.save(target, model, replace(header, training=header.training | {"config": config}))


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
