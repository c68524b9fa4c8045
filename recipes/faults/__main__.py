"""Interrupt Saccade as machines do, and look at what is left.

Every fault has a row of --table for each verb: how many trials there were, in how many the fault came before the end of
the run, and how many ended as promised. What did not is printed. Small disks are mounted, which needs root.

Usage: python -m recipes.faults ["kills" "disk full" ...] [--verbs train ...] [--times 60 20 10] [--seed 0]
"""

import random
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from recipes.faults import kills
from recipes.faults.disturbances import ON_EVERY_VERB, no_memory
from recipes.faults.verbs import Verb, in_two_processes, verbs
from recipes.stamped import replace_row

from saccade import console
from saccade.cli import main as run

Row = dict[str, Any]
Kill = Callable[[Verb, Path, kills.Undisturbed, random.Random], tuple[str, bool]]
Fault = Callable[[dict[str, Verb], Path, "Options"], Iterator[Row]]
# The shares of a run after which it is disturbed, or of its files that fit on the disk.
MOMENTS = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Options:
    """Which faults, and how often.

    Args:
        faults: kills, "kills of several", "disk full", "folder read-only", "clock set back", "same folder", SIGTERM or
            memory; by default all.
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
        "kills of several": killing_of_several,
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
        there = verbs(clips, place / "patch")
        if unknown := set(options.verbs) - set(there):
            raise SystemExit(f"unknown: {', '.join(unknown)}; the verbs are {', '.join(there)}")
        chosen = {word: verb for word, verb in there.items() if word in (options.verbs or there)}
        all_good = True
        for fault in options.faults or known:
            for row in known[fault](chosen, place, options):
                replace_row(options.table, row, ("fault", "verb"))  # at once: all trials take hours
                print(", ".join(f"{name} {value}" for name, value in row.items()))
                all_good &= row["good"] == row["trials"]
    if not all_good:
        raise SystemExit("not all trials ended as promised")


def killing(chosen: dict[str, Verb], place: Path, options: Options) -> Iterator[Row]:
    """Kill each verb at random moments."""
    for word, verb in chosen.items():
        num = options.times[0 if word == "train" else 1 if word == "generate" else 2]
        yield row_of("kill -9", word, at_random(kills.killed, verb, fresh(place / f"kills {word}"), num, options.seed))


def killing_of_several(chosen: dict[str, Verb], place: Path, options: Options) -> Iterator[Row]:
    """Kill a process of a training in two of them, and its launcher."""
    if "train" in chosen:
        verb = in_two_processes(chosen["train"])
        for name, kill in (("a worker", kills.worker_killed), ("the launcher", kills.killed)):
            outcomes = at_random(kill, verb, fresh(place / name), options.times[2], options.seed)
            yield row_of(f"kill -9 of {name} of two", "train", outcomes)


def at_random(kill: Kill, verb: Verb, folder: Path, num: int, seed: int) -> list[tuple[str, bool]]:
    """Kill a verb at random moments; return what came of each trial."""
    rng = random.Random(f"{seed} {verb.words[0]}")
    wanted = undisturbed(verb, folder)
    outcomes = []
    with console.counting_bar(verb.words[0]) as progress:
        for number in range(num):
            outcomes.append(kill(verb, folder / "run", wanted, rng))
            kills.remove(folder / "run")
            progress(number + 1, num)
    return outcomes


def disturbing(fault: str, chosen: dict[str, Verb], place: Path, options: Options) -> Iterator[Row]:
    """Disturb each verb at three moments."""
    for word, verb in chosen.items():
        wanted = undisturbed(verb, fresh(place / f"before {fault} {word}"))
        outcomes = [
            ON_EVERY_VERB[fault](verb, place / f"{fault} {word} {number}", wanted, share)
            for number, share in enumerate(MOMENTS)
        ]
        yield row_of(fault, word, outcomes)


def without_memory(chosen: dict[str, Verb], place: Path, options: Options) -> Iterator[Row]:
    """Let one clip need more memory than there is."""
    if "predict" in chosen:
        yield row_of("out of memory in a decoder", "predict", [no_memory(place / "memory")])


def row_of(fault: str, verb: str, outcomes: list[tuple[str, bool]]) -> Row:
    """Print what is wrong, and return the row."""
    for number, (wrong, _) in enumerate(outcomes):
        if wrong:
            console.say(f"{fault}, {verb}, trial {number}: {wrong}")
    in_time, good = (sum(found) for found in zip(*((before, not wrong) for wrong, before in outcomes), strict=True))
    return {"fault": fault, "verb": verb, "trials": len(outcomes), "in_time": in_time, "good": good}


def undisturbed(verb: Verb, folder: Path) -> kills.Undisturbed:
    """Run a verb without a fault, and remove its files."""
    wanted = kills.Undisturbed(verb, folder / "run")
    kills.remove(folder / "run")
    return wanted


def fresh(folder: Path) -> Path:
    """Create a folder."""
    folder.mkdir(parents=True)
    return folder


main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
