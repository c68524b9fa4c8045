"""The C++ kernels by themselves: `run.py` compiles and runs them in several ways, one test each."""

import subprocess
import sys
from pathlib import Path

import pytest

RUN = Path(__file__).with_name("run.py")
# Listed here, so that a way that is lost there is missed.
WAYS = "plain", "clang", "address", "threads", "exports", "aarch64", "old-x86", "avx512"
MISSING_TOOL, NOT_FOR_THIS_MACHINE = 2, 3


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_kernels_are_right_when_built_and_run(way):
    done = subprocess.run([sys.executable, RUN, way], capture_output=True, text=True, check=False)
    print(done.stdout)
    if done.returncode == NOT_FOR_THIS_MACHINE:
        pytest.skip(done.stdout)
    assert done.returncode != MISSING_TOOL, done.stdout
    assert done.returncode == 0, done.stdout + done.stderr
