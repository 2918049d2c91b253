"""The tree that the shared optimiser sees: all weights while tied, the shared ones afterwards.

It has the structure of the parameters, so that masks for those fit it, and a weight has
the same path before and after the release, so that its part of the optimiser's state is found.
"""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from lpw_jax.method import trees
from lpw_jax.method.trees import Tree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Both:
    """In the place of a weight that is shared and has a member's part as well."""

    shared: Any
    tied: Any


def joint(shared: Tree, own: Tree, *, tied: bool) -> Tree:
    """Shared weights and, if `tied`, one member's own in their places."""

    def place(shared, own):
        if own is None:
            return shared
        own = own if tied else None
        return own if shared is None else Both(shared, own)

    return trees.map_places(place, shared, own)


def separate(tree: Tree, shared: Tree, own: Tree) -> tuple[Tree, Tree]:
    """Inverse of `joint`, (shared, own); of the arguments only the structure counts."""

    def parts(shared, own, found):
        if shared is not None and own is not None:
            return found.shared, found.tied
        return (found, None) if own is None else (None, found)

    both = trees.map_places(parts, shared, own, tree)
    return tuple(trees.map_places(lambda _, pair, i=i: pair[i], shared, both) for i in range(2))


def narrow(state: Any, optimizer: optax.GradientTransformation, weights: Tree) -> Any:
    """The part of an optimiser's state that a smaller tree of weights has.

    Args:
      state: of `optimizer`, for the whole tree.
      weights: the smaller tree: as the whole one, with None in places.

    Raises:
      ValueError: the state does not go by weights, as that of `optax.flatten`.
    """
    there = {jax.tree_util.keystr(p): leaf for p, leaf in jax.tree.leaves_with_path(state)}
    wanted, treedef = jax.tree_util.tree_flatten_with_path(jax.eval_shape(optimizer.init, weights))
    found = []
    for path, like in wanted:
        leaf = there.get(jax.tree_util.keystr(path))
        if leaf is None or jnp.shape(leaf) != like.shape:
            raise ValueError(
                "shared_optimizer: its state must have an array for each weight, or none, so that "
                f"it can go on without late-phase weights; at {jax.tree_util.keystr(path)} it has "
                f"{None if leaf is None else jnp.shape(leaf)}, not {like.shape}"
            )
        found.append(leaf)
    return jax.tree.unflatten(treedef, found)


def update_weights(
    optimizer: optax.GradientTransformation,
    args: Mapping[str, Any],
    grads: Tree,
    weights: Tree,
    state: Any,
) -> tuple[Tree, Any]:
    """Weights and state after one update; `args` are what the optimiser takes besides."""
    update = optax.with_extra_args_support(optimizer).update
    updates, state = update(grads, state, weights, **args)
    return optax.apply_updates(weights, updates), state


def update_members(
    optimizer: optax.GradientTransformation,
    args: Mapping[str, Any],
    grads: Tree,
    weights: Tree,
    state: Any,
) -> tuple[Tree, Any]:
    """Every member's own update; arrays [K, ...]."""
    update = functools.partial(update_weights, optimizer, args)
    return jax.vmap(update)(grads, weights, state)
