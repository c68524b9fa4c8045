"""Interrupt Saccade as machines do, and look at what is left.

Every fault has a row of --table for each verb: how many trials there were, in how many the fault came before the end of
the run, in how many after its first file, and how many ended as promised; of a training also how many steps were taken
twice at most. What did not end as promised is printed. Small disks are mounted, which needs root.

Usage: python -m recipes.faults ["kills" "disk full" ...] [--verbs train ...] [--times 60 20 10] [--seed 0]
"""

import random
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import tyro
from recipes.faults import kills
from recipes.faults.disturbances import ON_EVERY_VERB, no_memory
from recipes.faults.kills import Outcome
from recipes.faults.verbs import Verb, in_two_processes, verbs
from recipes.stamped import replace_row

from saccade import console
from saccade.cli import main as run

Row = dict[str, Any]
Kill = Callable[[Verb, Path, kills.Undisturbed, random.Random], Outcome]
Trials = Callable[[Verb, Path, "Options"], list[Outcome]]
# The shares of a run after which it is disturbed, or of its files that fit on the disk.
MOMENTS = (0.1, 0.5, 0.9)
# Faults that are not for every verb.
ONLY = {"kills of several": ("train",), "memory": ("predict",)}


@dataclass(frozen=True)
class Options:
    """Which faults, and how often.

    Args:
        faults: kills, "kills of several", "disk full", "folder read-only", "clock set back", "same folder", SIGTERM or
            memory; by default all.
        verbs: the verbs to disturb; by default all that write files.
        times: the kills of train, of generate, and of each other verb. Those that come too late are repeated.
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
    known: dict[str, dict[str, Trials]] = {
        "kills": {"kill -9": killing},
        "kills of several": {
            "kill -9 of a worker of two": partial(killing_of_several, kills.worker_killed),
            "kill -9 of the launcher of two": partial(killing_of_several, kills.killed),
        },
        **{name: {name: partial(disturbing, name)} for name in ON_EVERY_VERB},
        "memory": {"out of memory in a decoder": without_memory},
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
        all_good = True
        for fault in options.faults or known:
            for label, trials in known[fault].items():
                for word in ONLY.get(fault, tuple(there)):
                    if options.verbs and word not in options.verbs:
                        continue
                    folder = fresh(place / f"{label} {word}")
                    row = row_of(label, word, tried(partial(trials, there[word], folder, options)))
                    replace_row(options.table, row, ("fault", "verb"))  # at once: all trials take hours
                    print(", ".join(f"{name} {value}" for name, value in row.items()), flush=True)
                    all_good &= row["good"] == row["trials"] and row["struck"] > 0
    if not all_good:
        raise SystemExit("not all trials ended as promised, or a fault never came in time")


def tried(trials: Callable[[], list[Outcome]]) -> list[Outcome]:
    """Return what came of trials; of those that cannot begin, a failed one, so that the others go on."""
    try:
        return trials()
    except (OSError, RuntimeError, ValueError, subprocess.CalledProcessError) as error:
        return [Outcome(f"{type(error).__name__}: {error}", struck=False)]


def killing(verb: Verb, folder: Path, options: Options) -> list[Outcome]:
    """Kill a verb at random moments."""
    word = verb.words[0]
    num = options.times[0 if word == "train" else 1 if word == "generate" else 2]
    return at_random(kills.killed, verb, folder, num, options.seed)


def killing_of_several(kill: Kill, verb: Verb, folder: Path, options: Options) -> list[Outcome]:
    """Kill a process of a training in two of them, or its launcher."""
    return at_random(kill, in_two_processes(verb), folder, options.times[2], options.seed)


def at_random(kill: Kill, verb: Verb, folder: Path, num: int, seed: int) -> list[Outcome]:
    """Kill a verb at random moments, until so many kills came before its end; return what came of each trial."""
    rng = random.Random(f"{seed} {verb.words[0]}")
    wanted = undisturbed(verb, folder)
    outcomes: list[Outcome] = []
    with console.counting_bar(verb.words[0]) as progress:
        while (struck := sum(outcome.struck for outcome in outcomes)) < num and len(outcomes) < 2 * num:
            progress(struck, num)
            outcomes += tried(lambda: [kill(verb, folder / "run", wanted, rng)])
            kills.remove(folder / "run")
    return outcomes


def disturbing(fault: str, verb: Verb, folder: Path, options: Options) -> list[Outcome]:
    """Disturb a verb at three moments."""
    wanted = undisturbed(verb, fresh(folder / "before"))

    def trial(number: int, share: float) -> list[Outcome]:
        return [ON_EVERY_VERB[fault](verb, folder / f"{number}" / "at", wanted, share)]

    return [outcome for number, share in enumerate(MOMENTS) for outcome in tried(partial(trial, number, share))]


def without_memory(verb: Verb, folder: Path, options: Options) -> list[Outcome]:
    """Let one clip need more memory than there is."""
    return [no_memory(folder)]


def row_of(fault: str, verb: str, outcomes: list[Outcome]) -> Row:
    """Print what is wrong, and return the row."""
    for number, outcome in enumerate(outcomes):
        if outcome.wrong:
            console.say(f"{fault}, {verb}, trial {number}: {outcome.wrong}")
    repeated = [outcome.repeated for outcome in outcomes if outcome.repeated is not None]
    return {
        "fault": fault,
        "verb": verb,
        "trials": len(outcomes),
        "struck": sum(outcome.struck for outcome in outcomes),
        "after_first_file": sum(outcome.struck and outcome.begun for outcome in outcomes),
        "good": sum(not outcome.wrong for outcome in outcomes),
        "most_steps_repeated": max(repeated) if repeated else "",
    }


def undisturbed(verb: Verb, folder: Path) -> kills.Undisturbed:
    """Run a verb without a fault, and remove its files."""
    wanted = kills.Undisturbed(verb, folder / "run")
    kills.remove(folder / "run")
    return wanted


def fresh(folder: Path) -> Path:
    """Create a folder."""
    folder.mkdir(parents=True)
    return folder


if __name__ == "__main__":
    main(tyro.cli(Options, config=(tyro.conf.OmitArgPrefixes,)))
