"""What the verb `train` prints: the clips that it read, the ladder, and what to do next."""

import shlex
from pathlib import Path
from typing import Any

from saccade.errors import UsageError

_MAX_NAMED = 10


def scanned(folder: Any) -> Any:
    """Read all clips of a collection; print a summary, the damaged clips, and whether metadata tells the class."""
    from saccade import console
    from saccade.data.leaks import check_leak
    from saccade.data.scan import cache_warning

    before = folder.summary()
    console.say(f"{folder.root}: {before}")
    records = folder.scanned()
    _damaged("left out", list(folder.left_out.values()))
    _damaged("read in part", [record.warning for record in records if record.warning is not None])
    if (warning := cache_warning()) is not None:
        console.say(f"warning: {warning}")
    if (left := folder.summary()) != before:
        console.say(f"without them: {left.splitlines()[0]}")
    if (leak := check_leak(records)) is not None and leak.found:
        console.say(
            f"warning: size, rate, duration and codec alone name the class of {100 * leak.accuracy:.0f} % of clips,"
            f" the {leak.most_frequent} has {100 * leak.largest_share:.0f} %; {leak.fields[0][0]} tells most:"
            " a model may learn this instead of what the clips show"
        )
    return records


def _damaged(what: str, reasons: list[str]) -> None:
    """Print what became of damaged clips, and why; of many, the first."""
    from saccade import console

    for reason in reasons[:_MAX_NAMED]:
        console.say(f"{what}: {reason}")
    if reasons[_MAX_NAMED:]:
        console.say(f"{what}: {len(reasons) - _MAX_NAMED} more clips; saccade check --csv lists all of them")


def ladder(rungs: Any, rows: Any, where: str) -> None:
    """Print simple classifiers and the rows of a model, and `where` they were tested."""
    from saccade import baselines, console

    over = "clips" if rows[0].groups is None else "groups"
    console.out.print(f"accuracy{where} (bootstrap intervals over {over}):")
    console.out.print(baselines.render(rungs, rows))


def events(found: Any) -> None:
    """Print how well the events of joined streams are found."""
    from saccade import console
    from saccade.stream.joined import MOST_FALSE_ALARMS

    console.say(f"as a stream, clips that were not learned joined by background: {found.told}")
    if found.false_per_minute > MOST_FALSE_ALARMS:
        console.say("no threshold gives one false alarm a minute or fewer; more background in training helps")
    elif found.recall < 0.5:
        console.say(
            "the model notices few events; more clips help, from more sessions. `saccade evaluate --stream` shows what"
            " lower thresholds find, and --min-confidence of `saccade stream` takes one"
        )


def in_folds(num_folds: int, num_clips: int) -> str:
    """Return where the models of folds were tested."""
    return f", {num_folds} folds, each of {num_clips} clips tested once"


def written(path: Path, learned: Any) -> None:
    """Print where the model is, and what can be done with it next."""
    from saccade import console
    from saccade.data import Folder

    model = shlex.quote(str(path.parent))
    evaluate = f"saccade evaluate --model {model}"
    console.say(f"wrote {path}")
    if not isinstance(learned, Folder):
        console.say(f"evaluate it with: {evaluate}")
    elif num := _num_test(learned):
        console.say(f"evaluate it on {num} test clips, which it has not seen, with: {evaluate}")
    console.say(f"use it with: saccade predict FILE --model {model}")
    console.say(f"see what it sees with: saccade explain FILE --model {model}")
    if isinstance(learned, Folder) and learned.labels.none is not None:
        console.say(f"follow a camera with: saccade stream 0 --events --model {model}")


def _num_test(learned: Any) -> int:
    try:
        return len(learned.clips("test"))
    except UsageError:  # none was held out
        return 0
