"""A test that takes `backend` runs with each one that this machine has, the kernels once for each instruction set."""

import pytest

from saccade.ops.deform_conv import cpu

CPU = [f"cpu:{instructions}" for instructions in cpu.instruction_sets()]


def pytest_generate_tests(metafunc):
    for name, values in {"backend": [*CPU, "portable", "reference"], "fast_backend": [*CPU, "portable"]}.items():
        if name in metafunc.fixturenames:
            metafunc.parametrize(name, values, indirect=True)


@pytest.fixture
def backend(request, monkeypatch):
    """Name a backend for `deform_conv2d`."""
    name, _, instructions = request.param.partition(":")
    if instructions:
        monkeypatch.setattr(cpu, "instruction_sets", lambda: [instructions])
    return name


fast_backend = backend
