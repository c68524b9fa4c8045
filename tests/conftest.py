"""What many tests share: the digits, the folder of MNIST, one thread."""

import os
import shutil
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


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory):
    """Decoded frames go into a folder of the tests, also those of processes that tests start."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


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


@pytest.fixture(scope="module")
def chromium():
    """Start Debian's Chromium, or one that Playwright installed, or skip.

    For a module at a time: while Playwright runs, no test in the same process can start an event loop of its own.
    """
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed: saccade[dev] has it")
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    with playwright.sync_playwright() as running:
        try:
            browser = running.chromium.launch(executable_path=shutil.which("chromium"), args=flags)
        except playwright.Error as error:
            pytest.skip(f"no Chromium starts; Debian's is in the package chromium: {str(error).splitlines()[0]}")
        yield browser
        browser.close()
