"""Video classification with learned visual attention."""

from importlib import import_module
from types import ModuleType

__version__ = "0.1.0"
__all__ = [
    "attention",
    "checkpoint",
    "data",
    "errors",
    "evaluate",
    "explain",
    "generate",
    "models",
    "nn",
    "ops",
    "predict",
    "reproduce",
    "serve",
    "train",
    "visualize",
    "weights",
]


def __getattr__(name: str) -> ModuleType:
    # Loaded on first use: torch takes a second, and `saccade --help` must not wait for it.
    if name in __all__:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
