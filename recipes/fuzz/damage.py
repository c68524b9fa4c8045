"""Good files of every kind that Saccade reads, and random damage to them."""

import io
import random
import tarfile
from pathlib import Path

import numpy as np
import torch

from saccade import checkpoint
from saccade.data.video_writing import write_gif, write_mp4
from saccade.labels import Labels
from saccade.models import create

_EXTREMES = (0, 1, 0x7F, 0x80, 0xFF)


def good_files(folder: Path) -> dict[str, list[Path]]:
    """Write a few good files of each kind."""
    frames = torch.randint(0, 256, (8, 3, 48, 64), dtype=torch.uint8)
    write_mp4(folder / "a.mp4", frames, 10.0)
    write_gif(folder / "a.gif", frames[:4], fps=10)
    np.savez(folder / "a.npz", frames=frames[:, 0].numpy())
    np.savez_compressed(folder / "b.npz", frames=frames.numpy())
    (folder / "clips.csv").write_text("path,class,start_s,end_s\na.mp4,one,0.1,0.4\na.gif,two,,\na.npz,two,,\n")
    rows = "model,data,seed,accuracy,cross_entropy,num_clips,steps\nlenet-lstm,moving digits,0,0.5,1.25,100,20\n"
    (folder / "rows.csv").write_text(rows)
    labels = Labels(("a", "b"))
    model = create("lenet-lstm", labels=labels)
    checkpoint.save(folder / "a.safetensors", model, checkpoint.Header("lenet-lstm", {}, labels))
    (folder / "run.json").write_text('{"verb": "train", "config": {"seed": 0, "steps": 3}, "finished": true}')
    (folder / "log.jsonl").write_text('{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.25}\n')
    idx = folder / "train-images-idx3-ubyte"
    idx.write_bytes(
        bytes((0, 0, 8, 3, 0, 0, 0, 20, 0, 0, 0, 28, 0, 0, 0, 28)) + (bytes(range(256)) * 62)[: 20 * 28 * 28]
    )
    (folder / "labels").write_bytes(bytes((0, 0, 8, 1, 0, 0, 0, 20)) + bytes(range(10)) * 2)
    with tarfile.open(folder / "train-0.tar", "w") as archive:
        for number, name in enumerate(("a.mp4", "a.gif", "a.npz")):
            archive.add(folder / name, f"{number}.{name[2:]}")
            label = tarfile.TarInfo(f"{number}.json")
            text = b'{"class": "%d", "group": "g%d"}' % (number % 2, number)
            label.size = len(text)
            archive.addfile(label, io.BytesIO(text))
    return {
        "video": [folder / "a.mp4", folder / "a.gif"],
        "npz": [folder / "a.npz", folder / "b.npz"],
        "idx": [idx],
        "archive": [folder / "train-0.tar"],
        "checkpoint": [folder / "a.safetensors"],
        "clips.csv": [folder / "clips.csv"],
        "rows.csv": [folder / "rows.csv"],
        "run": [folder / "run.json", folder / "log.jsonl"],
    }


def damaged(content: bytes, rng: random.Random) -> bytes:
    """Return bytes with one to eight changes, most of them near the beginning, where headers are."""
    held = bytearray(content)
    for _ in range(rng.choice((1, 1, 2, 4, 8))):
        if not held:
            break
        reach = min(len(held), rng.choice((64, 512, len(held))))
        at, num = rng.randrange(reach), rng.choice((1, 2, 4, 8, 64))
        change = rng.randrange(6)
        if change == 0:
            held[at] ^= 1 << rng.randrange(8)
        elif change == 1:
            held[at : at + num] = bytes([rng.choice(_EXTREMES)]) * len(held[at : at + num])
        elif change == 2:
            held[at : at + num] = rng.randbytes(len(held[at : at + num]))
        elif change == 3:
            del held[at : at + num]
        elif change == 4:
            held[at:at] = held[at : at + num]
        else:
            del held[rng.randrange(len(held)) :]
    return bytes(held)
