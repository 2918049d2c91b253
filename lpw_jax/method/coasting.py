"""Steps that members' optimisers take with a zero gradient, while others see their minibatches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

RULES = ("none", "reference", "every_minibatch")


def coasting_steps(rule: str, num_members: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zero-gradient optimiser steps that each member takes (before, after) its own in a cycle.

    A coasting step goes on with momentum and weight decay. The published code has two rules, under
    PyTorch 1.4: in 'reference', that of CIFAR, every optimiser steps at member 0's turn; in
    'every_minibatch', that of ImageNet, one optimiser holds all members, which step at every turn.
    'none' is Algorithm 1 of the paper.

    Raises:
      ValueError: unknown `rule`.
    """
    members, none = range(num_members), (0,) * num_members
    if rule == "none":
        return none, none
    if rule == "reference":
        return tuple(int(k > 0) for k in members), none
    if rule == "every_minibatch":
        return tuple(members), tuple(reversed(members))
    raise ValueError(f"coasting: must be one of {', '.join(RULES)}, got {rule!r}")


def coast(
    update: Callable[[Any, Any, Any], tuple[Any, Any]],
    weights: Any,
    opt_state: Any,
    *,
    times: tuple[int, ...],
    members: jax.Array,
    allowed: jax.Array,
) -> tuple[Any, Any]:
    """Members' weights and optimisers [K, ...] after their coasting steps.

    Args:
      update: (gradients, weights, opt_state) -> (weights, opt_state), over members.
      times: steps of each of all members.
      members: which of them are here, int32 [K].
      allowed: bool scalar; otherwise none coasts.
    """
    for i in range(max(times)):
        zeros = jax.tree.map(jnp.zeros_like, weights)
        moved = update(zeros, weights, opt_state)
        turn = allowed & (jnp.array(times)[members] > i)
        weights, opt_state = _where_member(turn, moved, (weights, opt_state))
    return weights, opt_state


def _where_member(condition: jax.Array, yes: Any, no: Any) -> Any:
    """Chooses between two trees of [K, ...] arrays by a [K] condition."""
    return jax.tree.map(
        lambda a, b: jnp.where(condition.reshape((-1,) + (1,) * (a.ndim - 1)), a, b), yes, no
    )
