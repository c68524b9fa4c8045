"""Interrupt Saccade as machines do, and look at what is left.

Every fault has a row of --table for each verb: how many trials there were, and how many ended as promised. What did not
is printed. Small disks are mounted, which needs root.

Usage: python -m recipes.faults ["kills" "disk full" ...] [--verbs train ...] [--times 60 20 10] [--seed 0]
"""

import csv
import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from recipes.faults import kills
from recipes.faults.disturbances import ON_EVERY_VERB, no_memory
from recipes.faults.verbs import Verb, verbs

import saccade
from saccade import console
from saccade.cli import main as run
from saccade.run_folder import commit

Row = dict[str, Any]
Fault = Callable[[dict[str, Verb], Path, "Options"], Iterator[Row]]
# The shares of a run after which it is disturbed, or of its files that fit on the disk.
MOMENTS = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Options:
    """Which faults, and how often.

    Args:
        faults: kills, "disk full", "read-only", "clock set back", "two runs", "SIGTERM" or memory; by default all.
        verbs: the verbs to disturb; by default all that write files.
        times: the kills of train, of generate, and of each other verb.
        seed: the seed of the moments.
        table: the file of the rows.
    """

    faults: Annotated[tuple[str, ...], tyro.conf.Positional] = ()
    verbs: tuple[str, ...] = ()
    times: tuple[int, int, int] = (60, 20, 10)
    seed: int = 0
    table: Path = Path("results/reliability.csv")


def main(options: Options) -> None:
    """Try the faults, print what is wrong, and write the rows."""
    known: dict[str, Fault] = {
        "kills": killing,
        **{name: partial(disturbing, name) for name in ON_EVERY_VERB},
        "memory": without_memory,
    }
    if unknown := set(options.faults) - set(known):
        raise SystemExit(f"unknown: {', '.join(unknown)}; the faults are {', '.join(known)}")
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        clips = place / "clips"
        words = ("--digits", "uci", "--num-clips", "60", "--num-frames", "8", "--condition", "normal")
        run(["generate", *words, "--labels", "digits", "--num-digits", "1", "--out", str(clips)])
        chosen = {word: verb for word, verb in verbs(clips).items() if word in (options.verbs or (word,))}
        for fault in options.faults or tuple(known):
            for row in known[fault](chosen, place, options):
                write(options.table, row)


def killing(chosen: dict[str, Verb], place: Path, options: Options) -> Iterator[Row]:
    """Kill each verb at random moments."""
    for word, verb in chosen.items():
        num = options.times[0 if word == "train" else 1 if word == "generate" else 2]
        rng = random.Random(f"{options.seed} {word}")
        wanted = undisturbed(verb, place / "run")
        good = in_time = 0
        with console.counting_bar(word) as progress:
            for number in range(num):
                wrong, before_the_end = kills.killed(verb, place / "run", wanted, rng)
                kills.remove(place / "run")
                good, in_time = good + (not wrong), in_time + before_the_end
                if wrong:
                    console.say(f"{word}, kill {number}: {wrong}")
                progress(number + 1, num)
        yield {"fault": "kill -9", "verb": word, "trials": num, "good": good, "before_the_end": in_time}


def disturbing(fault: str, chosen: dict[str, Verb], place: Path, options: Options) -> Iterator[Row]:
    """Disturb each verb at three moments."""
    for word, verb in chosen.items():
        wanted = undisturbed(verb, place / "run")
        good = 0
        for number, share in enumerate(MOMENTS):
            disk = place / f"{fault} {word} {number}"
            if wrong := ON_EVERY_VERB[fault](verb, disk, "run", wanted, share):
                console.say(f"{fault}, {word}, {share:.0%}: {wrong}")
            good += not wrong
        yield {"fault": fault, "verb": word, "trials": len(MOMENTS), "good": good}


def without_memory(chosen: dict[str, Verb], place: Path, _options: Options) -> Iterator[Row]:
    """Let one clip need more memory than there is."""
    if "predict" in chosen:
        if wrong := no_memory(chosen["predict"], place / "memory"):
            console.say(f"memory: {wrong}")
        yield {"fault": "out of memory in a decoder", "verb": "predict", "trials": 1, "good": int(not wrong)}


def undisturbed(verb: Verb, out: Path) -> kills.Undisturbed:
    """Run a verb without a fault, and remove its files."""
    wanted = kills.Undisturbed(verb, out)
    kills.remove(out)
    return wanted


def write(table: Path, row: Row) -> None:
    """Add a row to the table; it replaces an older one of the same fault and verb."""
    stamp = {"date": f"{datetime.now(UTC):%Y-%m-%d}", "version": saccade.__version__, "commit": commit()}
    row = {"fault": "", "verb": "", "trials": "", "good": "", "before_the_end": ""} | row | stamp
    old: list[dict[str, str]] = []
    if table.exists():
        with table.open(encoding="utf-8", newline="") as file:
            old = list(csv.DictReader(file))
    kept = [known for known in old if (known["fault"], known["verb"]) != (row["fault"], row["verb"])]
    table.parent.mkdir(parents=True, exist_ok=True)
    with table.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(row), lineterminator="\n")
        writer.writeheader()
        writer.writerows([*kept, row])
    print(", ".join(f"{name} {value}" for name, value in row.items() if value != ""))


main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
