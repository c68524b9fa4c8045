"""How many processors and how much memory a process may use."""

import os
import subprocess
import sys

import pytest
import torch

from saccade import device
from saccade.device import limit_threads
from saccade.processors import described, memory_bytes, num_processors


@pytest.mark.parametrize(
    ("own", "limits", "wanted"),
    [
        ("0::/", {"cpu.max": "150000 100000"}, 2),
        ("0::/", {"cpu.max": "max 100000"}, None),
        ("0::/a/b", {"cpu.max": "max 100000", "a/cpu.max": "50000 100000", "a/b/cpu.max": "max 100000"}, 1),
        (
            "3:cpu,cpuacct:/x",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "100000", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            1,
        ),
        (
            "3:cpu,cpuacct:/x",
            {"cpu,cpuacct/x/cpu.cfs_quota_us": "-1", "cpu,cpuacct/x/cpu.cfs_period_us": "100000"},
            None,
        ),
        ("nonsense", {}, None),
        ("0::/", {"cpu.max": "0 0"}, None),
    ],
)
def test_processors_are_counted_within_the_limits_of_a_container(tmp_path, own, limits, wanted):
    free = num_processors(tmp_path / "none", tmp_path / "none")
    assert free == len(os.sched_getaffinity(0))
    (tmp_path / "own").write_text(f"{own}\n")
    for name, text in limits.items():
        path = tmp_path / "groups" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    assert num_processors(tmp_path / "groups", tmp_path / "own") == (free if wanted is None else min(free, wanted))


@pytest.mark.parametrize(
    ("own", "name", "text", "limited"),
    [
        ("0::/", "memory.max", "1000000", True),
        ("0::/a/b", "a/memory.max", "1000000", True),
        ("4:memory:/x", "memory/x/memory.limit_in_bytes", "1000000", True),
        ("0::/", "memory.max", "max", False),
    ],
)
def test_memory_is_that_of_the_machine_within_the_limits_of_a_container(tmp_path, own, name, text, limited):
    (tmp_path / "own").write_text(f"{own}\n")
    path = tmp_path / "groups" / name
    path.parent.mkdir(parents=True)
    path.write_text(text)
    free = memory_bytes(tmp_path / "none", tmp_path / "none")
    assert memory_bytes(tmp_path / "groups", tmp_path / "own") == (1_000_000 if limited else free)


def test_processors_are_those_that_this_process_may_use():
    assert 1 <= num_processors() <= (os.cpu_count() or 1)
    if not hasattr(os, "sched_setaffinity"):
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {min(before)})
        assert num_processors() == 1
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize("asked", [1, 1000])
def test_torch_uses_no_more_threads_than_there_are_processors(asked):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(asked)
        limit_threads()
        assert torch.get_num_threads() == min(asked, num_processors())
    finally:
        torch.set_num_threads(before)


def test_a_control_group_may_have_a_name_that_is_no_text(tmp_path):
    group = tmp_path / "groups" / os.fsdecode(b"zo\xe9")
    group.mkdir(parents=True)
    (group / "cpu.max").write_text("50000 100000")
    (tmp_path / "own").write_bytes(b"0::/zo\xe9\n")
    assert num_processors(tmp_path / "groups", tmp_path / "own") == 1


FREED = """
import resource, sys
import torch
from saccade.device import keep_freed_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def fill():
    several = [torch.ones(2_000_000) for _ in range(8)]  # 64 MB, freed at once

if sys.argv[1] == "keep":
    assert keep_freed_memory()
for _ in range(5):  # the first may still fragment what is kept
    fill()
before = faults()
for _ in range(5):
    fill()
print(faults() - before)
"""


@pytest.mark.skipif(not hasattr(os, "confstr") or "glibc" not in str(os.confstr("CS_GNU_LIBC_VERSION")), reason="glibc")
def test_freed_memory_is_kept():
    # By itself, glibc moves its threshold, and what lies behind the freed blocks decides whether they are given back.
    fixed = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072"}
    kept, given_back = (
        int(
            subprocess.run(
                [sys.executable, "-c", FREED, how], check=True, capture_output=True, text=True, env=fixed
            ).stdout
        )
        for how in ("keep", "give back")
    )
    assert 10 * kept < given_back


@pytest.mark.parametrize(
    ("amx", "avx512", "maker", "chosen"),
    [
        (True, True, "GenuineIntel", torch.bfloat16),
        (False, True, "GenuineIntel", torch.float32),
        (False, True, "AuthenticAMD", torch.bfloat16),
        (False, False, "AuthenticAMD", torch.float32),
        (False, True, "", torch.float32),
    ],
)
def test_bfloat16_is_chosen_where_steps_are_shorter(amx, avx512, maker, chosen, monkeypatch):
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
    monkeypatch.setattr(device, "described", lambda name: maker if name == "vendor_id" else "")
    assert device.choose_precision("auto", torch.device("cpu")) == chosen
    assert device.choose_precision("bfloat16", torch.device("cpu")) == torch.bfloat16


def test_the_maker_is_read_from_the_description_of_the_processors(tmp_path):
    (tmp_path / "cpuinfo").write_text(
        "processor\t: 0\nno vendor_id\t: x\nvendor_id\t: AuthenticAMD\nmodel name\t: vendor_id: x\n"
    )
    assert described("vendor_id", tmp_path / "cpuinfo") == "AuthenticAMD"
    assert described("model name", tmp_path / "cpuinfo") == "vendor_id: x"
    (tmp_path / "arm").write_text("processor\t: 0\nCPU implementer\t: 0x41\n")
    assert described("vendor_id", tmp_path / "arm") == ""
    assert described("vendor_id", tmp_path / "none") == ""


def test_a_prepared_process_has_no_denormal_numbers_in_any_thread():
    code = (
        "import torch; from saccade.device import prepared_process\n"
        "def num(): return (torch.full((size,), 1e-30) * 1e-10).view(torch.int32).count_nonzero().item()\n"
        "with prepared_process(): torch.set_num_threads(2); size = 4_000_000; print(num())\n"
        "size = 100; print(num())"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["0", "100"]
