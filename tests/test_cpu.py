"""On CPUs programs take all cores and keep their memory."""

import subprocess
import sys

import jax
import numpy as np
import pytest

from lpw_jax.devices import cpu
from lpw_jax.devices.parallel import Devices
from lpw_jax.models.convolution import LAYOUT

STEPS = 10
# Temporary arrays of 32 MB, of which a page is 4 KiB.
PROGRAM = f"""
import resource, sys
from lpw_jax.devices import cpu
cpu.share_memory()
import jax, jax.numpy as jnp
step = jax.jit(lambda x: jnp.sin(x.T @ x).sum())
x = jnp.ones((8, 2900))
cpu.keep_memory(int(sys.argv[1]))
for _ in range(20):
    step(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range({STEPS}):
    step(x).block_until_ready()
print((resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) // {STEPS})
"""


def page_faults(planned=2**25, **environment):
    """Of a step in a process with these settings, that is said to need `planned` bytes."""
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(planned)],
        capture_output=True,
        text=True,
        check=True,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **environment},
    )
    return int(found.stdout)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="glibc's matter")
def test_a_step_takes_the_memory_of_the_one_before():
    assert page_faults() < 2000
    assert page_faults(planned=2**50) > 5000  # it has not so much
    assert page_faults(MALLOC_ARENA_MAX="4") > 5000  # the user's setting wins


def compiled_convolution():
    def convolve(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=LAYOUT)

    lifted = Devices.over(jax.devices()[:1]).lift(convolve, in_axes=(0, None), out_axes=0)
    x, kernel = np.zeros((1, 8, 16, 16, 32), np.float32), np.zeros((3, 3, 32, 32), np.float32)
    return lifted.lower(x, kernel).compile().as_text()


def test_a_convolution_takes_all_cores():
    assert "ynn_fusion" not in compiled_convolution()


YNN, EFFORT = "xla_cpu_experimental_ynn_fusion_type", "xla_backend_optimization_level"
SUMS = "LIBRARY_FUSION_TYPE_REDUCE"


@pytest.mark.parametrize(
    ("flag", "left"),
    [
        ("", {EFFORT: 1, YNN: SUMS}),
        (f"--{YNN}=individual_convolution", {EFFORT: 1}),
        (f"--{EFFORT}=0", {YNN: SUMS}),
        (f"--{EFFORT}=0 --{YNN}=individual_convolution", {}),
    ],
)
def test_a_flag_of_the_user_wins(flag, left, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", flag)
    cpu.compiler_options.cache_clear()
    try:
        assert cpu.compiler_options() == left
    finally:
        cpu.compiler_options.cache_clear()


def test_another_version_of_xla_may_lack_the_option(monkeypatch):
    monkeypatch.setattr(cpu, "_OPTION", "xla_cpu_no_such_option")
    cpu.compiler_options.cache_clear()
    try:
        assert cpu.compiler_options() == {}
    finally:
        cpu.compiler_options.cache_clear()
