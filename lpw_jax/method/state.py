"""The training state: arrays only, and the two events that make one: initialisation and release."""

import functools
from collections.abc import Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from lpw_jax.method import late_phase as lp

Tree = lp.Tree
RUNNING_MOMENTUM = 0.1  # PyTorch's convention: running = 0.9 running + 0.1 batch


class TrainState(flax.struct.PyTreeNode):
    """All that a step changes.

    Attributes:
      step: minibatches seen, int32 scalar; a cycle adds K.
      coasting: bool scalar; whether members may coast before their own step of the next cycle.
        False until the end of the first cycle after the release, when the reference's members 1
        to K-1 have no gradient buffer yet.
      shared: weights that every member uses.
      late_phase: members' own weights, every leaf [K, ...].
      batch_stats: members' running batch-norm statistics, every leaf [K, ...].
      opt_shared: optimiser state of `shared`.
      opt_late: members' optimiser states, every leaf [K, ...].
    """

    step: jax.Array
    coasting: jax.Array
    shared: Tree
    late_phase: Tree
    batch_stats: Tree
    opt_shared: Any
    opt_late: Any


@functools.partial(jax.jit, static_argnames=("patterns", "tx"))
def create(params: Tree, batch_stats: Tree, *, patterns: tuple[str, ...], tx: Any) -> TrainState:
    """State before the release: one tied copy, so late-phase leaves are [1, ...]."""
    shared, late = lp.split(params, patterns)
    late, batch_stats = jax.tree.map(lambda leaf: leaf[None], (late, batch_stats))
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        coasting=jnp.zeros((), bool),
        shared=shared,
        late_phase=late,
        batch_stats=batch_stats,
        opt_shared=tx.init(shared),
        opt_late=jax.vmap(tx.init)(late),
    )


def init(
    key: jax.Array,
    model: nn.Module,
    *,
    image_shape: Sequence[int],
    patterns: tuple[str, ...],
    tx: Any,
) -> TrainState:
    """Freshly initialised state for images of `image_shape` [H, W, C]; best compiled as a whole."""
    variables = model.init(key, jnp.zeros((1, *image_shape), model.dtype))
    return create(variables["params"], variables["batch_stats"], patterns=patterns, tx=tx)


@functools.partial(jax.jit, static_argnames=("num_members", "sigma", "tx"))
def release(
    state: TrainState,
    key: jax.Array,
    *,
    num_members: int,
    sigma: float,
    tx: optax.GradientTransformation,
) -> TrainState:
    """Copies the tied late-phase weights and statistics to K members (paper, section 2).

    Member k starts from the tied weights plus noise of standard deviation sigma * rms(leaf), with
    empty momentum; the shared optimiser goes on.
    """
    late = lp.copy_members(state.late_phase, num_members)
    if sigma > 0:
        late = lp.perturb(key, late, sigma)
    return state.replace(
        coasting=jnp.zeros((), bool),
        late_phase=late,
        batch_stats=lp.copy_members(state.batch_stats, num_members),
        opt_late=jax.vmap(tx.init)(late),
    )


def weights_of(state: Any) -> dict[str, Tree]:
    """What of a `TrainState`, or of SWA's averages, makes a network."""
    return {name: getattr(state, name) for name in ("shared", "late_phase", "batch_stats")}
