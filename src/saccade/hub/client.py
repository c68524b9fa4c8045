"""The client of the hub, and its errors in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import saccade
from saccade.errors import DataError, MissingExtraError, SaccadeError, UsageError
from saccade.hub.address import Address

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def client(token: str | None = None) -> HfApi:
    """Return a client of the hub.

    Args:
        token: the access token; by default that of `HF_TOKEN` or of the last login.

    Raises:
        MissingExtraError: if `huggingface_hub` is not installed.
    """
    try:
        from huggingface_hub import HfApi
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "hub") from error
    return HfApi(token=token, library_name="saccade", library_version=saccade.__version__)


@contextmanager
def explained(address: Address) -> Iterator[None]:
    """Turn the errors of transfers in the block into one line.

    The line has no text of the server, which may repeat what it was sent, such as a token.

    Raises:
        UsageError: if the hub allows no such name.
        DataError: for all other errors of the hub or of the connection.
        OSError: if the disk is full, or does not allow writing.
    """
    try:
        yield
    except SaccadeError:
        raise
    except Exception as error:
        if (reason := _reason(error, address)) is None:
            raise
        raise reason from error


def _reason(error: BaseException, address: Address) -> SaccadeError | None:
    """Return the error for users; None if the error already says what is wrong, or is a fault of this program."""
    import httpx2
    from huggingface_hub import errors

    if isinstance(error, RuntimeError) and error.__cause__ is not None:  # of one file of an upload
        return _reason(error.__cause__, address)
    if isinstance(error, errors.HfHubHTTPError):
        return DataError(f"{address} {_refusal(error)}")
    if isinstance(error, errors.HFValidationError):
        return UsageError(f"{address} is no name that the hub allows; write hf://USER/NAME")
    unreachable = (errors.RevisionResolutionError, errors.LocalEntryNotFoundError, errors.OfflineModeIsEnabled)
    if isinstance(error, (*unreachable, httpx2.ConnectError, httpx2.ConnectTimeout)):
        return DataError(
            f"{address} cannot be reached, and no copy of it is here; check the connection, HF_ENDPOINT and"
            " HF_HUB_OFFLINE"
        )
    if isinstance(error, OSError) and error.errno is not None:
        return None
    if isinstance(error, (httpx2.HTTPError, OSError, errors.XetDownloadError)):
        return DataError(f"the transfer of {address} broke off; nothing incomplete is kept: run the command again")
    if isinstance(error, ValueError):
        return DataError(f"{address} is not answered as by a hub; check HF_ENDPOINT, and proxies on the way")
    return None


def _refusal(error: Exception) -> str:
    """Say what an answer of the hub means."""
    from huggingface_hub import errors

    status = error.response.status_code  # type: ignore[attr-defined]
    if isinstance(error, errors.RevisionNotFoundError):
        return "has no such revision; write a branch, a tag or a commit behind the @"
    if isinstance(error, errors.GatedRepoError):
        return f"is only for users whom its owner admits ({status}); ask for access on its page, then {_LOGIN}"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"does not exist, or is private ({status}); check the name, or {_LOGIN}"
    said = {
        401: f"was asked with a token that the hub does not accept (401); {_LOGIN}",
        403: "is not open to this token (403); a token that may write to it is needed",
        404: "lacks what was asked for (404); check the name and the revision",
        429: "was asked too often (429); try again later",
    }
    return said.get(status, f"was answered with the status {status}; try again later")
