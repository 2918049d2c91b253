"""On CPUs programs keep their memory."""

import subprocess
import sys

import pytest

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


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's matter")
def test_a_step_takes_the_memory_of_the_one_before():
    assert page_faults() < 2000
    assert page_faults(planned=2**50) > 5000  # it has not so much
    assert page_faults(MALLOC_ARENA_MAX="4") > 5000  # the user's setting wins
