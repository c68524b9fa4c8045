"""The options that were typed: their names of today, and the fields of configurations that they set."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any

# Option names of version 0.1 that still work, with their current names: for all verbs, and for single verbs.
ALIASES = {"--data-dir": "--digits-dir"}
CLIPS_SEED = {"--seed": "--clips-seed"}
OWN_ALIASES = {"generate": CLIPS_SEED, "evaluate": CLIPS_SEED}


def given(words: Sequence[str], config: Any) -> dict[str, Any]:
    """Return the fields of a configuration whose options were typed."""
    typed = {word.partition("=")[0] for word in words}
    return {name: getattr(config, name) for name in names(config) if typed & {flag(name), off(name)}}


def names(config: Any) -> list[str]:
    """Return the names of the fields of a configuration."""
    return [field.name for field in fields(config)]


def flag(name: str) -> str:
    """Return the option name of a field of `DigitsConfig`."""
    return "--labels" if name == "scheme" else "--" + name.replace("_", "-")


def off(name: str) -> str:
    """Return the option name that sets a field to False, if its default is True."""
    return "--no-" + name.replace("_", "-")


def by_names_of_today(name: str, words: list[str]) -> list[str]:
    """Return the words with old option names replaced by the current ones."""
    aliases = ALIASES | OWN_ALIASES.get(name, {})
    found = []
    for word in words:
        option, equals, value = word.partition("=")
        option = "--" + option[2:].replace("_", "-") if option.startswith("--") else option
        found.append(aliases.get(option, option) + equals + value)
    return found
