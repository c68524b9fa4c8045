"""Damage files at random and read them: none may crash, hang, take memory without bound, or end in a traceback.

Each file begins as a good one of its kind. Bytes are then flipped, cut off, doubled, exchanged, or set to extreme
values. It is read in a second process, with a gigabyte of memory and ten seconds. A good outcome is that the file
is read, or that it is refused with one of Saccade's errors. What is not good is kept in --out.

Usage: python -m recipes.fuzz [--videos 5000] [--others 1000] [--seed 0] [--out runs/fuzz]; a row for each kind goes to
results/damaged.csv
"""

import random
import tempfile
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import tyro
from recipes.fuzz.damage import damaged, good_files
from recipes.fuzz.reading import READ, REFUSED, Job, lost, reader
from recipes.stamped import replace_row

from saccade import console
from saccade.predict.processes import Isolated


@dataclass(frozen=True)
class Options:
    """How many files of each kind.

    Args:
        videos: the number of videos.
        others: the number of files of each other kind.
        seed: the seed of the damage.
        out: the folder for files that were not read well.
        table: the file of the rows.
    """

    videos: int = 5000
    others: int = 1000
    seed: int = 0
    out: Path = Path("runs/fuzz")
    table: Path = Path("results/damaged.csv")


def main(options: Options) -> None:
    """Read damaged files of every kind, and print what came of them."""
    options.out.mkdir(parents=True, exist_ok=True)
    bad = 0
    with tempfile.TemporaryDirectory() as name:
        good = good_files(Path(name))
        read = Isolated(partial(reader, Path(name)), lost)
        for kind, files in good.items():
            num = options.videos if kind == "video" else options.others
            found = Counter[str]()
            rng = random.Random(f"{options.seed} {kind}")
            for original in files:
                copy = Path(name) / f"damaged{original.suffix}"
                copy.write_bytes(original.read_bytes())
                if (outcome := read(Job(kind, copy))) != READ:
                    raise SystemExit(f"the good {original.name} is not read: {outcome}")
            with console.counting_bar(kind) as progress:
                for number in range(num):
                    original = files[number % len(files)]
                    path = Path(name) / f"damaged{original.suffix}"
                    path.write_bytes(damaged(original.read_bytes(), rng))
                    outcome = read(Job(kind, path))
                    found[outcome.partition(":")[0]] += 1
                    if not outcome.startswith((READ, REFUSED)):
                        kept = options.out / f"{kind}-{number:05d}{original.suffix}"
                        path.rename(kept)
                        console.say(f"{kept}: {outcome}")
                    progress(number + 1, num)
            told = ", ".join(f"{count} {what}" for what, count in sorted(found.items()))
            print(f"{kind}: {num} files: {told}")
            outcomes = {"read": found[READ], "refused": found[REFUSED]}
            row: dict[str, Any] = {"kind": kind, "files": num} | outcomes
            row["neither"] = num - sum(outcomes.values())
            replace_row(options.table, row, ("kind",))
            bad += row["neither"]
        read.close()
    if bad:
        raise SystemExit(f"{bad} files were neither read nor refused")


main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
