"""Files of a repository on the hub, whole and with the digest that the hub names, or not at all."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from saccade import checkpoint, files
from saccade.errors import DataError
from saccade.foreign import shown
from saccade.hub.address import Address
from saccade.hub.client import client, explained

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_MOST_NAMED = 4
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def find(
    address: Address | str | os.PathLike[str],
    names: tuple[str, ...] = (checkpoint.NAME,),
    *,
    sha256: str | None = None,
    token: str | None = None,
) -> Path:
    """Return a file of a repository, downloaded unless the cache of `huggingface_hub` has it.

    A file whose SHA-256 is not that which the hub names, or `sha256`, is removed again; a copy is checked before each
    use. Without a connection the copy of the last download serves.

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
        commit = _commit(api, address)
        path = _cached(address, names, commit)
        if path is None:
            name, named = _named_digest(api, address, names, commit)
            path = Path(api.hf_hub_download(address.repository, name, revision=commit))
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
            path = Path(api.hf_hub_download(address.repository, name, revision=_commit(api, address)))
        except LocalEntryNotFoundError:
            raise
        except EntryNotFoundError:
            return None
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{name} of {address} is no text; take another repository") from error


def _commit(api: HfApi, address: Address) -> str:
    """Return the commit that the hub names for a revision; it becomes a part of paths in the cache."""
    commit = str(api.resolve_revision(address.repository, revision=address.revision).resolved)
    if not _COMMIT.fullmatch(commit):
        raise DataError(f"{address} has {shown(commit):.60} as its commit, which is none; check HF_ENDPOINT")
    return commit


def _cached(address: Address, names: tuple[str, ...], commit: str) -> Path | None:
    """Return a file that was downloaded before, and is still whole; what a commit holds never changes."""
    from huggingface_hub import try_to_load_from_cache

    for name in names:
        found = try_to_load_from_cache(address.repository, name, revision=commit)
        if isinstance(found, str) and _is_whole(path := Path(found)):
            return path
    return None


def _is_whole(path: Path) -> bool:
    """Return whether a file of the cache has the digest that it was stored under; otherwise remove it.

    A process may have been killed between the transfer and its check, and other programs write to the cache too.
    """
    named = path.resolve().name  # not a digest where the cache has no symbolic links
    if not _DIGEST.fullmatch(named) or files.digest_of(path) == named:
        return True
    _remove(path)
    return False


def _remove(path: Path) -> None:
    stored = path.resolve()
    path.unlink(missing_ok=True)  # another process may have found the same
    stored.unlink(missing_ok=True)


def _named_digest(api: HfApi, address: Address, names: tuple[str, ...], commit: str) -> tuple[str, str]:
    """Return the first of the names that a repository has, and the SHA-256 that the hub names for that file."""
    info = api.model_info(address.repository, revision=commit, files_metadata=True)
    held = {file.rfilename: file.lfs for file in info.siblings or ()}
    name = next((name for name in names if name in held), None)
    if name is None:
        listed = ", ".join(f"{shown(name):.80}" for name in sorted(held)[:_MOST_NAMED]) + (
            " ..." if len(held) > _MOST_NAMED else ""
        )
        raise DataError(f"{address} holds {listed or 'no files'}; a repository with {' or '.join(names)} is needed")
    if (large := held[name]) is None or not _DIGEST.fullmatch(large.sha256):
        raise DataError(f"{address} has no SHA-256 of {name}; a file in Git LFS is needed: upload it with saccade.hub")
    return name, large.sha256


def _check_digest(path: Path, wanted: str, address: Address) -> None:
    """Remove a file whose digest is another, so that the next call downloads it again."""
    if (came := files.digest_of(path)) != wanted:
        _remove(path)
        raise DataError(
            f"{path.name} of {address} has the SHA-256 {came[:12]}..., and {wanted[:12]}... is needed; it was removed:"
            " run the command again, and do not use the file if this comes twice"
        )
