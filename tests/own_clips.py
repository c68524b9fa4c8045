"""A folder of real files whose classes only motion tells: what a user might bring."""

import numpy as np
import torch

from saccade.data.video_writing import write_mp4

CLASSES = ("across take2", "down")


def moving_square(label, seed, *, num_frames=12, size=(48, 64)):
    """A coloured square that moves to the right or down from anywhere."""
    generator = torch.Generator().manual_seed(seed)
    colour = torch.randint(90, 256, (3, 1, 1), generator=generator)
    frames = torch.full((num_frames, 3, *size), 20)
    top, left = (int(torch.randint(0, edge - 34, (), generator=generator)) for edge in size)
    for t, frame in enumerate(frames):
        y, x = (top, left + 2 * t) if label == CLASSES[0] else (top + 2 * t, left)
        frame[:, y : y + 10, x : x + 10] = colour
    return frames.to(torch.uint8)


def write_folder(root, *, per_class=10, num_people=5, fps=10.0, **changes):
    """Write clips named CLASS_PERSON_NUMBER.mp4 into a folder a class, a level deeper for every second one."""
    for place, label in enumerate(CLASSES):
        for number in range(per_class):
            inside = root / label / ("more" if number % 2 else "")
            inside.mkdir(parents=True, exist_ok=True)
            frames = moving_square(label, 100 * place + number, num_frames=12 + number % 3, **changes)
            write_mp4(inside / f"{label}_{number % num_people:02d}_{number}.mp4", frames, fps)
    return root


def write_npz(path, grey, *, num_frames=2):
    """Write a small clip of one grey level, which costs no decoding."""
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, frames=np.full((num_frames, 32, 32), grey, np.uint8))
    return path
