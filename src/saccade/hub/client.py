"""The client of the hub, and its errors in one line."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import saccade
from saccade import files
from saccade.errors import DataError, MissingExtraError, SaccadeError, UsageError
from saccade.hub.address import Address

if TYPE_CHECKING:
    from huggingface_hub import HfApi

_TOKEN = re.compile(r"[!-~]+")  # others cannot be sent, and the errors of the client show the whole token
_LOGIN = "log in with `hf auth login`, or set HF_TOKEN"


def client(token: str | None = None) -> HfApi:
    """Return a client of the hub.

    Args:
        token: the access token; by default that of `HF_TOKEN` or of the last login.

    Raises:
        MissingExtraError: if `huggingface_hub` is not installed.
        UsageError: if the token cannot be one, or a variable of `huggingface_hub` is damaged.
    """
    try:
        from huggingface_hub import HfApi, get_token
    except ImportError as error:
        raise MissingExtraError("huggingface_hub", "hub") from error
    except ValueError as error:
        raise UsageError(
            f"huggingface_hub cannot start ({error}); check HF_ENDPOINT and its other variables"
        ) from error
    used = get_token() if token is None else token
    if used and not _TOKEN.fullmatch(used):
        raise UsageError(f"the access token holds a character that no token has; copy it again, or {_LOGIN}")
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
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.utils.logging import get_verbosity, set_verbosity

    before = get_verbosity()
    set_verbosity(max(before, logging.ERROR))  # its warnings repeat what the server says
    try:
        with files.errors_named(Path(HF_HUB_CACHE)):
            yield
    except SaccadeError:
        raise
    except Exception as error:
        if (reason := _reason(error, address)) is None:
            raise
        # Not `from error`: a traceback would show the text of the server, or the header with the token.
        raise reason from None
    finally:
        set_verbosity(before)


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
    if (
        isinstance(error, OSError)
        and error.errno is not None
        and not isinstance(error, (ConnectionError, TimeoutError))
    ):
        return None
    if isinstance(error, (httpx2.HTTPError, OSError, errors.XetDownloadError)):
        return DataError(f"the transfer of {address} broke off; nothing incomplete is kept: run the command again")
    if isinstance(error, (ValueError, LookupError, TypeError, AttributeError)):  # of JSON that is no hub's
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
        403: "is not open to this token (403); one that may read it, or write to it for a push, is needed",
        404: "lacks what was asked for (404); check the name and the revision",
        429: "was asked too often (429); try again later",
    }
    return said.get(status, f"was answered with the status {status}; try again later")
