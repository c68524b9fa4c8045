"""Untrusted input: the errors that malformed bytes raise, type checks for JSON, and escapes for printed text."""

from __future__ import annotations

import lzma
import os
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints, is_typeddict

UNREADABLE: tuple[type[Exception], ...] = (
    *(ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(SyntaxError, TypeError, ValueError, tokenize.TokenError),
    *(lzma.LZMAError, struct.error, zipfile.BadZipFile, zlib.error),
)
"""The errors that Python's readers raise on malformed bytes; code that reads untrusted input catches all of them."""

# Characters that start a line or change the writing direction, and lone surrogates.
_UNPRINTABLE = (*range(0x2028, 0x202F), *range(0x2066, 0x206A), *range(0xD800, 0xE000))
# What would be read as Markdown or HTML inside a line.
_MARKUP = re.compile(r"([\\`*_\[\]<>!|~&#])")
_ESCAPES = {
    **{code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160))},
    **{code: f"\\u{code:04x}" for code in _UNPRINTABLE},
    **{0xDC00 + byte: f"\\x{byte:02x}" for byte in range(128, 256)},  # bytes of a file name that are not UTF-8
}


def check_types(described: object, wanted: Any, name: str = "") -> None:
    """Raise TypeError if a JSON value does not have the declared type.

    Args:
        described: the JSON value; keys that a class does not declare are left to its constructor.
        wanted: the type: a dataclass, a `TypedDict`, or the type of a field.
        name: the name of the value in the message.

    Raises:
        TypeError: if the type differs; the message names the value and the type that is needed.

    >>> check_types([1, None], tuple[int, ...], "sizes")
    Traceback (most recent call last):
    TypeError: sizes[1] is None; int is needed
    """
    origin, arguments = get_origin(wanted), get_args(wanted)
    if wanted is Any:
        return
    if origin in (Union, UnionType):
        if not any(_fits(described, one) for one in arguments):
            raise _wrong(described, wanted, name)
    elif is_dataclass(wanted) or is_typeddict(wanted):
        if not isinstance(described, Mapping):
            raise _wrong(described, dict, name)
        for field, kind in get_type_hints(wanted).items():
            if field in described:
                check_types(described[field], kind, f"{name}.{field}" if name else field)
    elif origin is tuple:
        if not isinstance(described, list | tuple):
            raise _wrong(described, list, name)
        kinds = arguments[:1] * len(described) if arguments[1:] == (...,) else arguments
        if len(kinds) != len(described):
            raise _wrong(described, wanted, name)
        for place, (value, kind) in enumerate(zip(described, kinds, strict=True)):
            check_types(value, kind, f"{name}[{place}]")
    elif origin is dict:
        if not isinstance(described, Mapping):
            raise _wrong(described, dict, name)
        for key, value in described.items():
            check_types(value, arguments[1], f"{name}.{key}")
    elif not _is(described, wanted):
        raise _wrong(described, wanted, name)


def _fits(described: object, wanted: Any) -> bool:
    try:
        check_types(described, wanted)
    except TypeError:
        return False
    return True


def _is(described: object, wanted: type) -> bool:
    if isinstance(described, bool):  # a bool is an int in Python, but not in JSON
        return wanted is bool
    json_types = {float: (int, float), Path: (str, Path), NoneType: (NoneType,)}
    return isinstance(described, json_types.get(wanted, wanted))


def _wrong(described: object, wanted: Any, name: str) -> TypeError:
    needed = wanted.__name__ if isinstance(wanted, type) and not get_args(wanted) else str(wanted)
    return TypeError(f"{name or 'the value'} is {described!r:.60}; {needed} is needed")


def in_markdown(text: str) -> str:
    r"""Return untrusted text so that Markdown shows it as it is.

    >>> in_markdown("<b>|a_b")
    '\\<b\\>\\|a\\_b'
    """
    return _MARKUP.sub(r"\\\1", shown(text))


def shown(text: str | os.PathLike[str]) -> str:
    """Return untrusted text, such as a file name, in a form that is safe to print.

    Bytes that are not UTF-8, and characters that would move the cursor or start a line, become escapes.

    >>> shown(os.fsdecode(b"a\\xff.mp4")), shown("two\\nlines")
    ('a\\\\xff.mp4', 'two\\\\x0alines')
    """
    return os.fspath(text).translate(_ESCAPES)
