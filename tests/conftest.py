"""What many tests share: the digits, the folder of MNIST, one thread."""

import os
from pathlib import Path

import pytest
import torch

from saccade.data import digits

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Several test processes share the cores; more threads than cores only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def uci():
    """Load UCI's three splits by name."""
    return {split: digits.load("uci", split) for split in digits.SPLITS}


@pytest.fixture(scope="session")
def mnist_folder():
    """Find MNIST, or skip."""
    folder = Path(os.environ.get("SACCADE_MNIST", REPOSITORY.parent / "shared" / "data" / "mnist"))
    if not (folder / "train-images-idx3-ubyte.gz").is_file():
        pytest.skip(f"MNIST is not in {folder}; SACCADE_MNIST says where it lies")
    return folder


def pytest_collection_modifyitems(items):
    """Mark the tests that show faults not mended yet; one that begins to pass must leave the list.

    `known_failures.txt` names them, a line each. It is a debt, to be paid before anything new is built on it.
    """
    known = (Path(__file__).parent / "known_failures.txt").read_text(encoding="utf-8").splitlines()
    for item in items:
        if item.nodeid in known:
            # What depends on signals and pipes between processes may pass by chance.
            strict = "test_cli.py" not in item.nodeid
            item.add_marker(pytest.mark.xfail(strict=strict, reason="known fault, see tests/known_failures.txt"))
