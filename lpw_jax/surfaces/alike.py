"""The networks of a training state, written so that they can be compared weight by weight."""

from collections.abc import Callable

import jax.numpy as jnp

from lpw_jax.method import batch_norm, trees
from lpw_jax.method.model_state import mean_over_members
from lpw_jax.method.state import State
from lpw_jax.method.trees import Tree


def common_statistics(state: State) -> Tree:
    """The model state that `alike` takes: the mean of the members'."""
    return trees.join(state.shared_model_state, mean_over_members(state.member_model_state))


def alike(
    params: Tree,
    model_state: Tree,
    statistics: Tree,
    *,
    epsilon: float | Callable[[str], float],
) -> tuple[Tree, Tree]:
    """The same network in evaluation mode, its batch norms written with the running `statistics`.

    A batch norm computes s x + t with s = gamma / sqrt(var + eps) and t = beta - mean s. The same s
    and t are written with another mean and variance, so that between two networks only gamma and
    beta differ, and s and t are linear in them. A batch norm without gamma or beta stays as it is.

    Args:
      params, model_state: one network.
      statistics: a model state, of which batch norms take theirs.
      epsilon: as `LatePhase.batch_norm_epsilon`.
    """
    weights, stats, common = (
        dict(trees.places(tree)) for tree in (params, model_state, statistics)
    )
    for norm in batch_norm.find(params, model_state):
        if not norm.scale or not norm.shift:
            continue
        mean, var = stats[norm.mean], stats[norm.var]
        new_mean, new_var = common[norm.mean], common[norm.var]
        eps = epsilon(norm.module) if callable(epsilon) else epsilon
        slope = weights[norm.scale] / jnp.sqrt(var + eps)
        weights[norm.scale] = slope * jnp.sqrt(new_var + eps)
        weights[norm.shift] = weights[norm.shift] + (new_mean - mean) * slope
        stats[norm.mean], stats[norm.var] = new_mean, new_var
    return (
        trees.structure(params).unflatten(weights.values()),
        trees.structure(model_state).unflatten(stats.values()),
    )
