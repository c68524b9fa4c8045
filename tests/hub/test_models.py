"""Models on the hub: what is uploaded, what comes back, and what goes wrong, against a server on this machine."""

import hashlib
import json
import logging
import re
import resource
import subprocess
import sys
import traceback

import numpy as np
import pytest
import torch

from saccade import checkpoint, cli, weights
from saccade.errors import DataError, MissingExtraError, UsageError
from saccade.hub import Address, find, load, push

from .conftest import HEADER
from .server import GOOD_TOKEN, Faults

# Uploads of huggingface_hub call httpx2 as it was called before.
pytestmark = pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")

BAD_TOKEN = "hf_badTokenOfTheTests"


def commit_of(content):
    """Return a name for a commit, as long as Git's."""
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def there(hub, run, request):
    """A repository with the checkpoint, of a name that no other test has."""
    name = f"somebody/{commit_of(request.node.name.encode())}"
    content = (run / checkpoint.NAME).read_bytes()
    hub.add(name, {checkpoint.NAME: content}, commit=commit_of(name.encode()))
    return name


def left_of(cache, name):
    """Return the files that the cache holds of a repository, apart from the names of its commits."""
    folder = cache / f"models--{name.replace('/', '--')}"
    return [path for kind in ("blobs", "snapshots") for path in (folder / kind).rglob("*") if not path.is_dir()]


# --- There and back


def test_a_model_comes_back_as_it_was_pushed(hub, run):
    address = push(run, "somebody/there-and-back", token=GOOD_TOKEN)
    repository = hub.repositories["somebody/there-and-back"]
    assert address.endswith(repository.main)
    assert repository.private
    assert len(repository.commits) == 2  # the creation, and one commit for all files
    held = repository.commits[repository.main]
    assert set(held) == {".gitattributes", "checkpoint.safetensors", "checkpoint.json", "README.md"}
    assert held["checkpoint.safetensors"] == (run / checkpoint.NAME).read_bytes()
    assert json.loads(held["checkpoint.json"]) == json.loads((run / "checkpoint.json").read_text())

    model, header = load("somebody/there-and-back", token=GOOD_TOKEN)
    assert header == HEADER
    assert not model.training
    expected = checkpoint.load(run)[0].state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())


def test_a_revision_is_a_commit_that_stays(hub, there, run):
    first = hub.repositories[there].main
    hub.add(there, {checkpoint.NAME: b"something else"}, commit=commit_of(b"later"))
    assert load(there, revision=first)[1] == HEADER
    assert load(f"hf://{there}@{first}")[1] == HEADER
    with pytest.raises(DataError, match="not a complete safetensors file"):
        load(there)
    with pytest.raises(DataError, match="has no such revision"):
        load(there, revision="v9")


def test_a_copy_serves_without_a_connection_and_without_a_second_download(hub, there):
    load(there)
    hub.requests.clear()
    load(there)
    assert not any(request.startswith("GET") and "/resolve/" in request for request in hub.requests)
    hub.faults = Faults(status=503)
    assert load(there)[1] == HEADER


def test_a_public_repository_takes_no_private_model(hub, run):
    hub.add("somebody/public", {"notes.txt": b"mine"})
    with pytest.raises(UsageError, match="exists and is public; say private=False"):
        push(run, "somebody/public", token=GOOD_TOKEN)
    assert set(hub.repositories["somebody/public"].commits[hub.repositories["somebody/public"].main]) == {"notes.txt"}
    push(run, "somebody/public", private=False, token=GOOD_TOKEN)
    assert {"notes.txt", checkpoint.NAME} < set(
        hub.repositories["somebody/public"].commits[hub.repositories["somebody/public"].main]
    )


def test_nothing_is_uploaded_of_a_damaged_checkpoint(hub, tmp_path):
    (tmp_path / checkpoint.NAME).write_bytes(b"half")
    with pytest.raises(DataError, match="not a complete safetensors file"):
        push(tmp_path, "somebody/damaged", token=GOOD_TOKEN)
    assert not hub.requests


def test_verbs_take_a_model_from_the_hub(hub, there, tmp_path, capsys):
    np.savez(tmp_path / "clip.npz", frames=np.zeros((3, 32, 32), np.uint8))
    assert cli.main(["predict", str(tmp_path / "clip.npz"), "--model", f"hf://{there}", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["verdict"]
    assert weights.find(f"hf://{there}").is_file()
    assert cli.main(["predict", str(tmp_path / "clip.npz"), "--model", "hf://somebody/nothing"]) == 1
    said = capsys.readouterr().err
    assert "hf://somebody/nothing does not exist, or is private" in said
    assert "Traceback" not in said


# --- What goes wrong


def test_without_the_package_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'saccade\[hub\]'"):
        load("somebody/something")


@pytest.mark.parametrize("text", ["something", "hf://a/b/c", "hf://a b/c", "a/b@", "https://host/a/b", "hf://a/b/"])
def test_what_is_no_address_is_refused(text):
    with pytest.raises(UsageError, match="write hf://USER/NAME or"):
        Address.parse(text)


@pytest.mark.parametrize("revision", ["../../other", "/etc", "a/../b", "two words", "a\n\x1b[31m", "x" * 256])
def test_what_is_no_revision_is_refused_before_it_becomes_a_path(hub, there, revision):
    for given in (lambda: load(there, revision=revision), lambda: Address.parse(f"hf://{there}@{revision}")):
        with pytest.raises(UsageError, match=r"^[^\n\x1b]* is no revision; write a branch"):
            given()
    assert not hub.requests
    assert Address.parse("HF://a/b@refs/pr/1") == Address("a/b", "refs/pr/1")


def test_a_name_that_the_hub_does_not_allow_is_refused(hub):
    with pytest.raises(UsageError, match="no name that the hub allows"):
        load("somebody/a..b")


@pytest.mark.parametrize(
    ("token", "said"),
    [(None, "does not exist, or is private"), (BAD_TOKEN, "with a token that the hub does not accept")],
)
def test_a_private_repository_needs_a_token(hub, there, token, said):
    hub.repositories[there].private = True
    with pytest.raises(DataError, match=said):
        load(there, token=token)


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (302, "is not answered as by a hub"),
        (403, "is not open to this token .* may read it"),
        (418, "with the status 418"),
        (429, "too often"),
    ],
)
def test_other_refusals_name_their_status(hub, there, status, said):
    hub.faults = Faults(status=status)
    with pytest.raises(DataError, match=said):
        load(there)


def test_without_a_connection_and_a_copy_the_error_says_so(hub, there):
    hub.faults = Faults(status=503)
    with pytest.raises(DataError, match="cannot be reached, and no copy of it is here"):
        load(there)


def test_a_repository_without_a_checkpoint_is_refused_before_a_download(hub):
    hub.add("somebody/other", {"pytorch_model.bin": b"code", "README.md": b"", "\x1b[2J\n": b""})
    with pytest.raises(
        DataError, match=r"holds \\x1b\[2J\\x0a, README.md, pytorch_model.bin; a repository with checkpoint.safetensors"
    ):
        load("somebody/other")
    assert not any("/resolve/" in request for request in hub.requests)


def test_a_commit_that_would_leave_the_cache_is_refused(hub):
    hub.add("somebody/odd-commit", {checkpoint.NAME: b""}, commit="../../../other")
    with pytest.raises(DataError, match=r"has \.\./\.\./\.\./other as its commit"):
        load("somebody/odd-commit")
    assert not any("/resolve/" in request for request in hub.requests)


def test_a_file_whose_digest_the_hub_does_not_name_is_refused(hub):
    hub.add("somebody/plain", {"README.md": b"not in Git LFS"})
    with pytest.raises(DataError, match=r"has no SHA-256 of README.md"):
        find("hf://somebody/plain", ("README.md",))


def test_a_checkpoint_of_others_is_refused(hub, there, run):
    hub.repositories[there].commits[hub.repositories[there].main] = {checkpoint.NAME: b"\x02\0\0\0\0\0\0\0{}"}
    with pytest.raises(DataError, match="was not written by saccade"):
        load(there)


@pytest.mark.parametrize(
    ("faults", "said"), [(Faults(broken=1), "with the status 503"), (Faults(short=True), "broke off; nothing")], ids=str
)
def test_a_download_that_breaks_off_leaves_nothing_and_the_next_succeeds(hub, there, cache, faults, said):
    hub.faults = faults
    with pytest.raises(DataError, match=said):
        load(there)
    assert not left_of(cache, there)
    hub.faults = Faults()
    assert load(there)[1] == HEADER
    assert len(left_of(cache, there)) == 2  # the file, and its name in the commit


def test_other_bytes_than_the_hub_names_are_removed_and_the_next_download_succeeds(hub, there, cache):
    hub.faults = Faults(corrupt=True)
    with pytest.raises(DataError, match="is needed; it was removed"):
        load(there)
    assert not left_of(cache, there)
    hub.faults = Faults()
    assert load(there)[1] == HEADER


def test_a_copy_that_is_no_longer_whole_is_downloaded_again(hub, there, run):
    stored = find(there).resolve()
    whole = (run / checkpoint.NAME).read_bytes()
    for damaged in (whole[:1000], whole[:-1] + bytes([whole[-1] ^ 1])):  # such as a killed process left unchecked
        stored.write_bytes(damaged)
        assert find(there).read_bytes() == whole
    stored.write_bytes(whole[:1000])
    hub.faults = Faults(status=503)
    with pytest.raises(DataError, match="hf://somebody/"):
        find(there)


def test_a_full_disk_names_the_cache(hub, there, cache):
    _, most = limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, most))
    try:
        with pytest.raises(OSError, match=f"File too large: '{re.escape(str(cache))}'"):
            find(there)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert find(there).is_file()


@pytest.mark.parametrize("token", ["hf_secret\nof", "hf_sécret", "hf secret"])
def test_a_token_that_cannot_be_sent_is_refused(hub, there, token):
    with pytest.raises(UsageError, match="holds a character that no token has") as caught:
        load(there, token=token)
    assert token not in str(caught.value)
    assert not hub.requests


@pytest.mark.parametrize("faults", [Faults(), Faults(status=403), Faults(status=500)], ids=str)
def test_a_token_is_never_told(hub, run, faults, capfd, caplog):
    hub.faults = faults
    with caplog.at_level(logging.DEBUG), pytest.raises(DataError) as caught:
        push(run, "somebody/secret", token=BAD_TOKEN)
    told = capfd.readouterr()
    shown = "".join(traceback.format_exception(caught.value)).replace("token=BAD_TOKEN", "")
    assert BAD_TOKEN not in f"{shown} {told.out} {told.err} {caplog.text}"
    assert "\n" not in str(caught.value)


def test_a_warning_of_the_client_does_not_tell_the_token(hub, there):
    load(there, token=GOOD_TOKEN)
    hub.faults = Faults(status=503)
    code = f"from saccade.hub import find; print(find({there!r}, token={GOOD_TOKEN!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
