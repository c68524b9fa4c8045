"""What several processes learn is what one process learns, to rounding."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "together.py"
ALONE = {"OMP_NUM_THREADS": "1"}


def curve(num, path, *more):
    """Take the steps in `num` processes."""
    launcher = [] if num == 1 else ["-m", "torch.distributed.run", "--nproc-per-node", str(num)]
    command = [sys.executable, *launcher, str(SCRIPT), str(path), *more]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | ALONE, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(path.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return curve(1, tmp_path_factory.mktemp("one") / "curve.json")


@pytest.mark.parametrize(("num", "shares"), [(2, [3, 4]), (3, [2, 2, 3])])
def test_fifty_steps_agree_to_rounding(num, shares, one, tmp_path):
    several = curve(num, tmp_path / "curve.json")
    assert several["shares"] == shares
    # They would abort the process if they let go of a tensor while the interpreter ends.
    assert several["threads_left"] == []
    assert len(several["loss"]) == 50
    assert one["loss"][-1] < 0.7 * one["loss"][0]  # it learns
    for name in ("loss", "gradient_norm", "statistics"):
        assert several[name] == pytest.approx(one[name], rel=1e-12), name
    assert several["accuracy"] == pytest.approx(one["accuracy"], abs=1e-6)


def test_no_thread_of_the_processes_is_left_after_an_error(tmp_path):
    assert curve(2, tmp_path / "curve.json", "fail") == {"threads_left": []}
