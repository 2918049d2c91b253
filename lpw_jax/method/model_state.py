"""What a model changes by itself in training, such as batch norm's running statistics.

The library hands it to the model, takes what the model returns, and does not interpret it. State of
late-phase layers is each member's own; that of shared layers is one, which the members' minibatches
change in turn.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from lpw_jax.method import devices, trees
from lpw_jax.method.selection import select
from lpw_jax.method.trees import Tree


@functools.partial(
    jax.tree_util.register_dataclass, data_fields=["value"], meta_fields=["momentum"]
)
@dataclasses.dataclass(frozen=True)
class Observed:
    """What a layer saw in one batch, returned in the place of its new state.

    It becomes `(1 - momentum) * state + momentum * value`. A layer that returns this instead of a
    new state lets members be computed at once even where it is shared, and statistics be
    re-estimated with another momentum.
    """

    value: jax.Array
    momentum: float

    def follow(self, running: jax.Array, momentum: Any = None) -> jax.Array:
        """The new state; `momentum` takes the place of its own."""
        momentum = self.momentum if momentum is None else momentum
        return (1 - momentum) * running + momentum * self.value


def is_observed(x: Any) -> bool:
    """For `is_leaf`."""
    return isinstance(x, Observed)


def whose(params: Tree, members: Tree, model_state: Tree, rule: Any) -> list[bool]:
    """Whether each place of `model_state` is state of members, else of shared layers.

    Args:
      params, members: of the network, and what of it is one member's own.
      rule: None, True (all), False (none), or a selection as in `select`. None goes by paths: a
        state belongs to the last module on its path that has parameters, as 'bn/mean' (or
        'batch_stats/bn/mean') does to that of 'bn/scale', and is members' own if one of them is.

    Raises:
      ValueError: None, and a floating state is in no module with parameters.
    """
    found = trees.places(model_state)
    if isinstance(rule, bool):
        return [rule and leaf is not None for _, leaf in found]
    if rule is not None:
        selection = rule if isinstance(rule, tuple) else (rule,)
        return select(model_state, selection, "member_state")
    own = trees.structure(params).flatten_up_to(members)
    paths = [path for path, leaf in trees.places(params) if leaf is not None]
    late = {
        trees.module(path)
        for (path, _), part in zip(trees.places(params), own, strict=True)
        if part is not None
    }
    modules = {trees.module(path) for path in paths}
    if trees.is_empty(trees.divide(params, [part is not None for part in own])[1]):
        return [leaf is not None for _, leaf in found]

    def is_members(path, leaf):
        if leaf is None:
            return False
        module = trees.owner(path, modules)
        if module is not None:
            return module in late
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            raise ValueError(
                f"model_state: {path!r} is in no module with parameters, so whose state it is "
                "must be said: member_state=True (all of it is members' own), False (of shared "
                "layers), or a selection of what is members' own"
            )
        return False

    return [is_members(path, leaf) for path, leaf in found]


def to_be_changed(state: Tree) -> Tree:
    """The same arrays in new containers: nnx's are changed in place, equinox's made invalid."""
    return jax.tree.map(lambda leaf: leaf, state)


def settle(before: Tree, returned: Tree) -> tuple[Tree, Tree]:
    """What a model returned, as (new states, observations); places without news are None.

    Raises:
      ValueError: another structure than `before` had, or another shape or type in a place.
    """

    def structure(tree):
        return jax.tree.structure(tree, is_leaf=lambda x: x is None or is_observed(x))

    there, got = trees.is_there(before), structure(returned)
    if structure(before) == got:
        found = got.flatten_up_to(returned)
        if there == [leaf is not None for leaf in found]:
            for (path, old), new in zip(trees.places(before), found, strict=True):
                _check_same_type(path, old, new.value if is_observed(new) else new)
            news = trees.map_places(lambda old, new: None if new is old else new, before, returned)
            return (
                trees.map_places(lambda _, new: None if is_observed(new) else new, before, news),
                trees.map_places(lambda _, new: new if is_observed(new) else None, before, news),
            )
    raise ValueError(
        "loss_fn: must return a model_state of the structure it was given, "
        f"{jax.tree.structure(before)}; got {jax.tree.structure(returned)}"
    )


def _check_same_type(path: str, old: Any, new: Any) -> None:
    if old is None:
        return
    given, got = (f"{jnp.result_type(x)}{list(jnp.shape(x))}" for x in (old, new))
    if given != got:
        raise ValueError(
            "loss_fn: must return a model_state of the shapes and types it was given, but "
            f"{path!r} was {given} and is {got}"
        )


def follow(state: Tree, observed: Tree, momentum: Any = None) -> Tree:
    """`state` after its observations; arrays of both may be [K, ...]."""
    return trees.map_places(
        lambda old, seen: old if seen is None else seen.follow(old, momentum), state, observed
    )


def follow_in_turn(state: Tree, observed: Tree, momentum: Any = None) -> Tree:
    """`state` after observations [n, ...], one after the other."""
    observed = devices.gather(observed)
    count = next((len(leaf) for leaf in jax.tree.leaves(observed)), 0)
    for i in range(count):
        state = follow(state, jax.tree.map(lambda leaf, i=i: leaf[i], observed), momentum)
    return state


def mean_over_members(state: Tree) -> Tree:
    """One state of members' [K, ...]: the mean, or, of what is not floating, member 0's."""
    return jax.tree.map(
        lambda leaf: leaf.mean(0) if jnp.issubdtype(leaf.dtype, jnp.inexact) else leaf[0], state
    )
