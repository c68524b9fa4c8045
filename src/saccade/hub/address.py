"""The address of a repository on the hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

from saccade.errors import UsageError
from saccade.foreign import shown

# A path keeps one of the two slashes.
_BEGIN = re.compile(r"hf:/+", re.IGNORECASE)
_REST = re.compile(r"([\w.-]+/[\w.-]+)(?:@(.+))?", re.ASCII | re.DOTALL)
# Git's rules, as far as a revision becomes a part of paths.
_REVISION = re.compile(r"(?!/)(?!.*\.\.)[\w.][\w./-]{0,254}", re.ASCII)


@dataclass(frozen=True)
class Address:
    """A repository of models at one revision.

    Args:
        repository: the user or organisation and the name, with a slash between.
        revision: a branch, a tag or the digits of a commit; None for the main branch.

    Raises:
        UsageError: if there can be no such revision.
    """

    repository: str
    revision: str | None = None

    def __post_init__(self) -> None:
        if self.revision is not None and not _REVISION.fullmatch(self.revision):
            raise UsageError(
                f"{shown(self.revision):.60} is no revision; write a branch, a tag or a commit behind hf://USER/NAME@"
            )

    @classmethod
    def parse(cls, text: str | os.PathLike[str]) -> Address:
        """Return the address in `hf://USER/NAME` or `hf://USER/NAME@REVISION`; `hf://` may be left out.

        Raises:
            UsageError: if the text is no such address.

        >>> Address.parse("hf://timm/resnet18.a1_in1k@main")
        Address(repository='timm/resnet18.a1_in1k', revision='main')
        """
        found = _REST.fullmatch(_BEGIN.sub("", os.fspath(text), count=1))
        if found is None:
            raise UsageError(
                f"{shown(text)} is no address of a repository; write hf://USER/NAME or hf://USER/NAME@REVISION"
            )
        return cls(found[1], found[2])

    def __str__(self) -> str:
        return f"hf://{self.repository}" + (f"@{self.revision}" if self.revision else "")


def is_address(text: str | os.PathLike[str]) -> bool:
    """Return whether a text or path is meant as an address on the hub.

    >>> is_address("hf://timm/resnet18.a1_in1k"), is_address("runs/hf")
    (True, False)
    """
    return _BEGIN.match(os.fspath(text)) is not None
