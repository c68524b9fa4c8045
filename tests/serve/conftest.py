"""Untrained models, a server with them, a page on it."""

from __future__ import annotations

import pytest
import torch

from saccade import checkpoint, models

from .talk import Page, Server


@pytest.fixture(scope="session")
def untrained(tmp_path_factory):
    """Write checkpoints of the three models with random weights; what they say does not matter to most tests."""
    folder = tmp_path_factory.mktemp("untrained")
    paths = []
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for name in ("lenet-lstm", "stn-lstm", "dcn-lstm"):
            path = folder / f"{name}.safetensors"
            header = checkpoint.Header(name, {"num_classes": 10}, {"labels": "digits"})
            checkpoint.save(path, models.create(name, num_classes=10), header)
            paths.append(path)
    return paths


@pytest.fixture(scope="session")
def make_server(tmp_path_factory):
    """Start servers; they end with the tests."""
    started: list[Server] = []

    def make(*words: object) -> Server:
        log = tmp_path_factory.mktemp("server") / "log.txt"
        started.append(Server(log, *words))
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
