"""Untrained models, a server with them, a page on it."""

from __future__ import annotations

import pytest
import torch

from saccade import checkpoint, models
from saccade.clips import FrameFormat
from saccade.data.digits.schemes import SCHEMES
from saccade.labels import Labels

from .tab import ARGUMENTS, CHROMIUM
from .talk import Page, Server

OWN = Labels(("take2", "wave", "3 wheels"))
"""Classes that are no digits, though their names hold some."""

RGB = FrameFormat(3, (64, 96), fps=12.5)


def write_checkpoint(path, name="lenet-lstm", *, loud=1, **arguments):
    """Write a model with random weights; loud ones make its probabilities differ."""
    model = models.create(name, **arguments)
    if loud != 1:
        with torch.no_grad():
            for parameter in model.head.parameters():
                parameter.mul_(loud)
    own = ("labels", "frame_format")
    rest = {key: value for key, value in arguments.items() if key not in own}
    given = {key: arguments[key] for key in own if key in arguments}
    checkpoint.save(path, model, checkpoint.Header(name, rest, **given))
    return path


@pytest.fixture(scope="session")
def untrained(tmp_path_factory):
    """Write checkpoints of the three models with random weights; what they say does not matter to most tests."""
    folder = tmp_path_factory.mktemp("untrained")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        labels = SCHEMES["digits"].labels
        return [write_checkpoint(folder / f"{name}.safetensors", name, labels=labels) for name in models.MATCHED]


@pytest.fixture(scope="session")
def own_models(tmp_path_factory):
    """Write checkpoints of two models that see RGB frames of 64x96 at 12.5 a second, and know no digits."""
    folder = tmp_path_factory.mktemp("own")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [
            write_checkpoint(folder / f"{name}.safetensors", name, labels=OWN, frame_format=RGB, input="both")
            for name in ("stn-lstm", "dcn-lstm")
        ]


@pytest.fixture(scope="session")
def noticing(tmp_path_factory):
    """Write the checkpoint of a model whose event is that its frames get bright."""
    torch.manual_seed(0)
    labels, wanted = Labels(("none", "bright"), none="none"), FrameFormat(3, (48, 64), fps=10)
    model = models.create("lenet-lstm", labels=labels, frame_format=wanted).eval()
    features = []
    hook = model.head.register_forward_pre_hook(lambda _, given: features.append(given[0][0, -1]))
    with torch.no_grad():
        for level in (20, 220):
            model(torch.full((1, 20, 3, 48, 64), level, dtype=torch.uint8))
        hook.remove()
        (dark, bright), along = features, features[1] - features[0]
        linear = next(part for part in model.head.modules() if isinstance(part, torch.nn.Linear))
        linear.weight.zero_()
        linear.bias.zero_()
        linear.weight[1] = 12 * along / (along @ along)
        linear.bias[1] = -(linear.weight[1] @ (dark + bright)) / 2
    path = tmp_path_factory.mktemp("noticing") / "noticing.safetensors"
    checkpoint.save(path, model, checkpoint.Header("lenet-lstm", {}, labels=labels, frame_format=wanted))
    return path


def blinking(seconds, fps=10, size=(48, 64)):
    """Return frames that get bright and dark again, each for a second."""
    levels = torch.tensor([20, 220], dtype=torch.uint8)[torch.arange(round(seconds * fps)) // fps % 2]
    return levels.view(-1, 1, 1, 1).expand(-1, 3, *size).contiguous()


@pytest.fixture(scope="session")
def make_server(tmp_path_factory):
    """Start servers; they end with the tests."""
    started: list[Server] = []

    def make(*words: object, **variables: object) -> Server:
        log = tmp_path_factory.mktemp("server") / "log.txt"
        started.append(Server(log, *words, **variables))
        return started[-1]

    yield make
    for server in started:
        server.end()


@pytest.fixture(scope="session")
def server(make_server, untrained):
    """Share one server with three places among the tests that leave it as it was."""
    made = make_server("--port", 0, "--max-clients", 3, "--model", *untrained)
    made.wait_until_ready()
    return made


@pytest.fixture
def page(server):
    """Connect a page, and see that its place is free again for the next test."""
    server.wait_for_pages(0)
    with Page(server) as made:
        yield made
    server.wait_for_pages(0)


@pytest.fixture(scope="module")
def playwright():
    sync_api = pytest.importorskip("playwright.sync_api", reason="the page is tested with playwright")
    if CHROMIUM is None:
        pytest.skip("no chromium here, in which the page is tested; get it with: apt install chromium")
    with sync_api.sync_playwright() as started:
        yield started


@pytest.fixture(scope="module")
def browser(playwright):
    launched = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
    yield launched
    launched.close()
