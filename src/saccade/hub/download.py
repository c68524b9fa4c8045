"""Files of a repository on the hub, whole and with the digest that the hub names, or not at all."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from saccade import checkpoint, files
from saccade.errors import DataError
from saccade.hub.address import Address
from saccade.hub.client import client, explained

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_MOST_NAMED = 4


def find(
    address: Address | str | os.PathLike[str],
    names: tuple[str, ...] = (checkpoint.NAME,),
    *,
    sha256: str | None = None,
    token: str | None = None,
) -> Path:
    """Return a file of a repository, downloaded unless the cache of `huggingface_hub` has it.

    A file whose SHA-256 is not that which the hub names, or `sha256`, is removed again. Without a connection the copy
    of the last download serves.

    Args:
        address: the repository, for example `hf://USER/NAME`.
        names: the names of the file, the first that the repository has; `.safetensors` files.
        sha256: the digest that the file must have, whatever the hub says.
        token: the access token; by default that of `HF_TOKEN` or of the last login.

    Raises:
        MissingExtraError: if `huggingface_hub` is not installed.
        UsageError: if the address is none.
        DataError: if the hub cannot be reached or refuses, if the transfer broke off, if the repository has no such
            file, or if the digest is another.
    """
    address = address if isinstance(address, Address) else Address.parse(address)
    api = client(token)
    with explained(address):
        revision = api.resolve_revision(address.repository, revision=address.revision)
        path = _cached(address, names, revision.resolved)
        if path is None:
            name, named = _named_digest(api, address, names, revision.resolved)
            path = Path(api.hf_hub_download(address.repository, name, revision=revision.resolved))
            _check_digest(path, named, address)
    if sha256 is not None:
        _check_digest(path, sha256, address)
    return path


def find_text(address: Address, name: str) -> str | None:
    """Return the text of a small file beside the weights; None if the repository has none of that name.

    Raises:
        DataError: as for `find`; also if the file is no text.
    """
    api = client()
    from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

    with explained(address):
        try:
            revision = api.resolve_revision(address.repository, revision=address.revision)
            path = Path(api.hf_hub_download(address.repository, name, revision=revision.resolved))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            return None
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} of {address} is no text; take another repository") from error


def _cached(address: Address, names: tuple[str, ...], commit: str) -> Path | None:
    """Return a file that was downloaded before; what a commit holds never changes."""
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        if isinstance(path := try_to_load_from_cache(address.repository, name, revision=commit), str):
            return Path(path)
    return None


def _named_digest(api: HfApi, address: Address, names: tuple[str, ...], commit: str) -> tuple[str, str]:
    """Return the first of the names that a repository has, and the SHA-256 that the hub names for that file."""
    info = api.model_info(address.repository, revision=commit, files_metadata=True)
    held = {file.rfilename: file.lfs for file in info.siblings or ()}
    name = next((name for name in names if name in held), None)
    if name is None:
        listed = ", ".join(sorted(held)[:_MOST_NAMED]) + (" ..." if len(held) > _MOST_NAMED else "")
        raise DataError(f"{address} holds {listed or 'no files'}; a repository with {' or '.join(names)} is needed")
    if (large := held[name]) is None:
        raise DataError(f"{address} has no SHA-256 of {name}; a file in Git LFS is needed: upload it with saccade.hub")
    return name, large.sha256


def _check_digest(path: Path, wanted: str, address: Address) -> None:
    """Remove a file whose digest is another, so that the next call downloads it again."""
    if (came := files.digest_of(path)) != wanted:
        stored = path.resolve()
        path.unlink()
        stored.unlink(missing_ok=True)
        raise DataError(
            f"{path.name} of {address} has the SHA-256 {came[:12]}..., and {wanted[:12]}... is needed; it was removed:"
            " run the command again, and do not use the file if this comes twice"
        )
