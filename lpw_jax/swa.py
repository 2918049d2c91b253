"""Stochastic weight averaging of shared and late-phase weights (Izmailov et al., 2018)."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from lpw_jax.state import TrainState


class Averages(flax.struct.PyTreeNode):
    """Running means over epochs; members are averaged over time, each on its own.

    Attributes:
      count: epochs averaged, int32 scalar.
      shared: mean of `TrainState.shared`.
      late_phase: mean of `TrainState.late_phase`, leaves [K, ...].
    """

    count: jax.Array
    shared: Any
    late_phase: Any


def init(state: TrainState) -> Averages:
    """Averages over no epoch yet."""
    zeros = jax.tree.map(jnp.zeros_like, (state.shared, state.late_phase))
    return Averages(jnp.zeros((), jnp.int32), *zeros)


@jax.jit
def update(averages: Averages, state: TrainState) -> Averages:
    """Adds the weights of an epoch's end: average += (weight - average) / (count + 1)."""
    count = averages.count + 1
    shared, late_phase = jax.tree.map(
        lambda average, weight: average + (weight - average) / count.astype(weight.dtype),
        (averages.shared, averages.late_phase),
        (state.shared, state.late_phase),
    )
    return Averages(count, shared, late_phase)
