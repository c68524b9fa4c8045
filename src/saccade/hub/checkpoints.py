"""Checkpoints on the hub."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import nn

from saccade import checkpoint
from saccade.errors import UsageError
from saccade.hub import card
from saccade.hub.address import Address
from saccade.hub.client import client, explained
from saccade.hub.download import find


def load(
    repo_id: str, *, revision: str | None = None, token: str | None = None, device: torch.device | str = "cpu"
) -> tuple[nn.Module, checkpoint.Header]:
    """Return the model of a repository, in evaluation mode, and the header of its checkpoint.

    Loading runs no code of the repository. The file is kept in the cache of `huggingface_hub`.

    Args:
        repo_id: `USER/NAME`, with or without `hf://` before it.
        revision: a branch, a tag or a commit; by default the main branch. A commit never changes.
        token: the access token; by default that of `HF_TOKEN` or of the last login.
        device: where the model is needed.

    Raises:
        MissingExtraError: if `huggingface_hub` is not installed.
        UsageError: if `repo_id` is no name of a repository.
        DataError: if the model cannot be downloaded, or is no checkpoint of Saccade.
    """
    address = Address.parse(repo_id)
    return checkpoint.load(find(Address(address.repository, revision or address.revision), token=token), device)


def push(
    run: Path | str, repo_id: str, *, private: bool = True, token: str | None = None, license: str | None = None
) -> str:
    """Upload a checkpoint, its header in JSON and a model card, in one commit; return the address of the commit.

    The repository is created if needed. What it holds under these three names is replaced; other files stay. The
    checkpoint is uploaded as it is: it names the folder of the training clips and the clips that were held out.

    Args:
        run: the folder of a run, or a checkpoint.
        repo_id: `USER/NAME`, with or without `hf://` before it.
        private: whether only its owner may read the repository. False also allows a repository that is public.
        token: an access token that may write; by default that of `HF_TOKEN` or of the last login.
        license: the identifier of a licence, such as `apache-2.0`, for the card. By default the card names none.

    Raises:
        MissingExtraError: if `huggingface_hub` is not installed.
        UsageError: if `repo_id` or `license` is none, or the repository is public and `private` is set.
        DataError: if the checkpoint is damaged, or the hub refuses the upload or cannot be reached.
    """
    path, address = checkpoint.locate(run), Address.parse(repo_id)
    if address.revision is not None:
        raise UsageError(f"{address} names a revision; models go to the main branch: leave out @{address.revision}")
    _, header = checkpoint.load(path)  # what cannot be loaded here cannot be loaded by others
    text = card.text(address.repository, header, card.figures(path, header), license)
    described = json.dumps(header.as_json(), indent=2, ensure_ascii=False) + "\n"
    api = client(token)
    from huggingface_hub import CommitOperationAdd

    held: dict[str, Path | bytes] = {
        checkpoint.NAME: path,
        # Names of files need not be UTF-8.
        str(Path(checkpoint.NAME).with_suffix(".json")): described.encode(errors="backslashreplace"),
        card.NAME: text.encode(),
    }
    with explained(address):
        api.create_repo(address.repository, private=private, exist_ok=True)
        if private and not api.model_info(address.repository).private:
            raise UsageError(f"{address} exists and is public; say private=False if all may read the model")
        added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in held.items()]
        commit = api.create_commit(address.repository, added, commit_message=f"Upload {header.kind}")
    return str(commit.commit_url)
