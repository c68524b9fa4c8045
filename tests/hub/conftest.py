"""A hub on this machine, in the place of the one in the network."""

from pathlib import Path

import pytest
import torch

from saccade import checkpoint
from saccade.clips import FrameFormat
from saccade.labels import Labels

from . import server


@pytest.fixture(scope="session")
def _running(tmp_path_factory):
    """Start the hub; `huggingface_hub` reads these variables when it is imported, which no other tests do."""
    with server.running() as hub, pytest.MonkeyPatch.context() as patch:
        for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_OFFLINE", "HF_HUB_CACHE"):
            patch.delenv(name, raising=False)
        for name in ("NO_PROXY", "no_proxy"):
            patch.setenv(name, "127.0.0.1")
        patch.setenv("HF_ENDPOINT", hub.url)
        patch.setenv("HF_HOME", str(tmp_path_factory.mktemp("hub")))
        patch.setenv("HF_HUB_DISABLE_XET", "1")  # its storage is another protocol
        patch.setenv("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        constants = pytest.importorskip("huggingface_hub.constants", reason="saccade[hub] has it")
        assert hub.url == constants.ENDPOINT, "huggingface_hub was imported before the tests of the hub"
        yield hub


@pytest.fixture
def hub(_running):
    """The hub, without repositories and faults; repositories of other tests stay in the cache."""
    _running.repositories.clear()
    _running.requests.clear()
    _running.faults = server.Faults()
    return _running


@pytest.fixture
def cache(hub):
    """The folder in which downloads are kept."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return Path(HF_HUB_CACHE)


HEADER = checkpoint.Header(
    "lenet-lstm",
    {"trunk": "small", "input": "frames"},
    Labels(("wave", "<b>clap</b>", "jump|high")),
    FrameFormat(1, size=(32, 32), fps=10.0),
    {"config": {"root": "/of-somebody/clips"}, "facts": {"data": "clips", "protocol": "end_to_end"}},
    {"step": 7, "config": {"seed": 3}},
)


@pytest.fixture(scope="session")
def run(tmp_path_factory):
    """The folder of a run: a checkpoint with random weights, and the verdicts of four tested clips."""
    folder = tmp_path_factory.mktemp("run")
    torch.manual_seed(0)
    checkpoint.save(folder / checkpoint.NAME, HEADER.create_model(), HEADER)
    rows = ["path,group,fold,class,verdict,probability", *(f"{i}.mp4,,0,wave,{v},0.5" for i, v in enumerate("wwjw"))]
    text = "\n".join(rows).replace(",w,", ",wave,").replace(",j,", ",jump|high,")
    (folder / "tested.csv").write_text(text + "\n", encoding="utf-8")
    return folder
