"""What it takes the host to start a step of many arrays, by each backend."""

import statistics
import time

import jax
import numpy as np

from lpw_jax.devices.parallel import Devices

ARRAYS, CALLS = 250, 200  # about the arrays of a WRN-28-10's state; calls in a round


def measure(devices: Devices, *, repeats: int) -> dict[str, dict[str, object]]:
    """By backend, the median over `repeats` rounds, taken in turn, of microseconds a call.

    A call adds 1 to 250 donated numbers on every device, so that the devices have next to nothing
    to do. `clock` is that of the wall, `cpu` counts all threads of the process.
    """
    steps, states, ones = {}, {}, {}
    for backend in ("pmap", "shard_map"):
        by = Devices.over(devices.all, backend=backend)
        steps[backend] = by.lift(
            lambda state, one: [leaf + one for leaf in state],
            in_axes=(None, 0),
            out_axes=None,
            donate_argnums=(0,),
        )
        ones[backend] = by.shard(np.ones(by.count, np.float32))
        states[backend] = steps[backend](by.replicate([np.float32(0)] * ARRAYS), ones[backend])
    rounds = {backend: [] for backend in steps}
    for _ in range(repeats):
        for backend, step in steps.items():
            state = jax.block_until_ready(states[backend])
            start = time.perf_counter(), time.process_time()
            for _ in range(CALLS):
                state = jax.block_until_ready(step(state, ones[backend]))
            end = time.perf_counter(), time.process_time()
            states[backend] = state
            rounds[backend].append([1e6 * (b - a) / CALLS for a, b in zip(start, end, strict=True)])
    return {
        backend: {
            name: statistics.median(found)
            for name, found in zip(("clock", "cpu"), zip(*each, strict=True), strict=True)
        }
        | {"rounds": each}
        for backend, each in rounds.items()
    }
