"""Which kind of training the options ask for: a head fitted at once to a pretrained trunk, or a training by steps."""

from collections.abc import Sequence
from typing import Any

from saccade.cli.options import flag, given

_PRETRAINED = "efficientnet-lite0"
# They mean the same in both kinds, or what they ask for is so when a head is fitted at once.
_NEUTRAL = ("seed", "device", "precision", "augment")


def by_steps(words: Sequence[str], config: Any) -> list[str]:
    """Return the options that were typed and ask for a training by steps."""
    typed = given(words, config)
    return [
        flag(name) for name in typed if name not in _NEUTRAL and not (name == "trunk" and config.trunk == _PRETRAINED)
    ]


def is_pretrained(words: Sequence[str], config: Any) -> bool:
    """Return whether a head is fitted at once: nothing asks for steps, and the pretrained trunk is there or named."""
    from saccade.models import efficientnet

    if by_steps(words, config):
        return False
    return config.trunk == _PRETRAINED or efficientnet.pretrained_file() is not None


def told(words: Sequence[str], config: Any) -> str | None:
    """Return a line about why a training on own clips is of its kind; None if nothing is to be said."""
    from saccade.models import efficientnet

    asking = by_steps(words, config)
    if is_pretrained(words, config):
        return _without_effect(config)
    if efficientnet.pretrained_file() is not None:
        it = "it" if len(asking) == 1 else "them"
        return f"{_listed(asking)} a training by steps; without {it}, a head is fitted at once to a pretrained trunk"
    if asking:
        return None
    return (
        "no pretrained trunk: a small model learns from scratch; few clips are learned better with"
        " pip install 'saccade[pretrained]'"
    )


def _without_effect(config: Any) -> str | None:
    chosen = {"device": config.device.startswith("cuda"), "precision": config.precision == "bfloat16"}
    options = [f"{flag(name)} {getattr(config, name)}" for name, differs in chosen.items() if differs]
    if not options:
        return None
    have = "has" if len(options) == 1 else "have"
    return f"{' and '.join(options)} {have} no effect: a head is fitted at once, on the processor and in float32"


def _listed(options: Sequence[str]) -> str:
    """Return options as the beginning of a sentence."""
    if len(options) == 1:
        return f"{options[0]} asks for"
    return f"{', '.join(options[:-1])} and {options[-1]} ask for"
