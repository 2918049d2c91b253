"""Medians of repeated runs, contenders in turn, so that a noisy machine is unfair to none."""

import statistics
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from lpw_jax.devices import cpu


class Contender:
    """A compiled step with its arguments on the devices.

    Raises:
      jax.errors.JaxRuntimeError: it does not fit into memory.
    """

    def __init__(self, program: Any):
        start = time.perf_counter()
        compiled = program.lower().compile()
        self.compile_seconds = time.perf_counter() - start
        self.images_per_call = program.images_per_call
        self.flops = (compiled.cost_analysis() or {}).get("flops")
        self.memory_bytes = planned_bytes(compiled)
        if plan := compiled.memory_analysis():
            cpu.keep_memory(plan.temp_size_in_bytes)
        self._call = program.bind(compiled)
        self._carry, self._rest = program.arguments()
        self.rounds: list[float] = []
        self._run(1)  # warm-up
        seconds = self._run(1)
        self._calls = max(1, round(0.5 / seconds))

    def _run(self, calls: int) -> float:
        """Seconds a call."""
        start = time.perf_counter()
        for _ in range(calls):
            self._carry = self._call(self._carry, *self._rest)
        jax.block_until_ready(self._carry)
        return (time.perf_counter() - start) / calls

    def round(self) -> None:
        """Times one round of at least about half a second."""
        self.rounds.append(self._run(self._calls))

    def facts(self) -> dict[str, Any]:
        """What was measured, of JSON's types."""
        seconds = statistics.median(self.rounds)
        return {
            "compile_seconds": self.compile_seconds,
            "seconds_per_call": seconds,
            "images_per_call": self.images_per_call,
            "images_per_second": self.images_per_call / seconds,
            "rounds": self.rounds,
            "memory_bytes": self.memory_bytes,
        }


def planned_bytes(compiled: Any) -> int | None:
    """Memory that XLA plans for a program on a device, None if it does not say."""
    plan = compiled.memory_analysis()
    return plan and (
        plan.argument_size_in_bytes
        + plan.output_size_in_bytes
        + plan.temp_size_in_bytes
        - plan.alias_size_in_bytes
    )


def matmul_flops_per_second(dtype: str, precision: str, *, size: int, repeats: int) -> float:
    """Measured rate of the device with products of random [size, size] matrices."""
    rng = np.random.default_rng(0)
    a, b = (
        jax.device_put(jnp.asarray(rng.standard_normal((size, size), np.float32), dtype))
        for _ in range(2)
    )

    @jax.jit
    def chain(a, b):  # each product needs the one before; scaled, so that nothing overflows
        for _ in range(4):
            a = (jnp.matmul(a, b, precision=precision) / size**0.5).astype(a.dtype)
        return a

    chain(a, b).block_until_ready()
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        chain(a, b).block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 4 * 2 * size**3 / statistics.median(seconds)
