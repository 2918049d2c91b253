"""Stochastic weight averaging of shared and late-phase weights (Izmailov et al., 2018)."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from lpw_jax.method.state import TrainState


class Averages(flax.struct.PyTreeNode):
    """Running means over epochs; members are averaged over time, each on its own.

    Attributes:
      count: epochs averaged, int32 scalar.
      shared: mean of `TrainState.shared`.
      late_phase: mean of `TrainState.late_phase`, leaves [K, ...].
      batch_stats: batch-norm statistics of the means, leaves [K, ...]; zeros until they are
        re-estimated after training.
    """

    count: jax.Array
    shared: Any
    late_phase: Any
    batch_stats: Any


def init(state: TrainState) -> Averages:
    """Averages over no epoch yet, placed as the weights are."""
    averaged = (state.shared, state.late_phase, state.batch_stats)
    placed = jax.tree.map(lambda leaf: getattr(leaf, "sharding", None), averaged)
    zeros = jax.jit(lambda: jax.tree.map(jnp.zeros_like, averaged), out_shardings=placed)()
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
    return averages.replace(count=count, shared=shared, late_phase=late_phase)
