"""Trees of a model's weights with something else, or nothing, in a leaf's place.

Weights may be any pytree: nested dicts, `nnx.State`s, equinox modules, dataclasses. Late-phase
training divides them by leaf: a divided tree has the structure of the weights, with None where a
leaf is in the other part (and perhaps more than an array where it is in this one).
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp

Tree = Any
Place = tuple[str, Any]  # a path, and what stands there


class Node:
    """A pytree that stands in the place of one leaf of the weights."""


def is_place(x: Any) -> bool:
    """For `is_leaf`: what, besides leaves, stands in a place of a divided tree, or is empty."""
    return x is None or isinstance(x, Node)


def structure(tree: Tree) -> Any:
    """The tree's structure, empty places included."""
    return jax.tree.structure(tree, is_leaf=is_place)


def places(tree: Tree) -> list[Place]:
    """Every leaf and empty place of `tree` with its path, in the order of `structure`."""
    found, _ = jax.tree_util.tree_flatten_with_path(tree, is_leaf=is_place)
    return [(path_name(path), leaf) for path, leaf in found]


def path_name(path: Sequence[Any]) -> str:
    """A key path joined by '/', such as 'encoder/layers/0/kernel'.

    A last attribute `value`, in which variables of nnx keep their array, is left out.
    """
    path = tuple(path)
    if path and path[-1] == jax.tree_util.GetAttrKey("value"):
        path = path[:-1]
    return jax.tree_util.keystr(path, simple=True, separator="/")


def module(path: str) -> str:
    """The path of what a leaf is in."""
    return path.rpartition("/")[0]


def owner(path: str, modules: Collection[str]) -> str | None:
    """The innermost of `modules` on the path of a leaf of the model state, None if there is none.

    In front of it may be the name of a collection: 'batch_stats/bn/mean' is in 'bn'.
    """
    for whole in (module(path), module(path.partition("/")[2])):
        inner = whole
        while inner and inner not in modules:
            inner = module(inner)
        if inner in modules and (inner or not whole):
            return inner
    return None


def divide(tree: Tree, here: Sequence[bool]) -> tuple[Tree, Tree]:
    """`tree` as two trees: its leaves where `here` is true, and all others."""
    leaves, treedef = _flat(tree)
    yes = [leaf if chosen else None for leaf, chosen in zip(leaves, here, strict=True)]
    no = [None if chosen else leaf for leaf, chosen in zip(leaves, here, strict=True)]
    return treedef.unflatten(yes), treedef.unflatten(no)


def map_places(fn: Callable[..., Any], tree: Tree, *others: Tree) -> Tree:
    """`fn` of what stands in each place of `tree` and, whatever it is, there in the others."""
    leaves, treedef = _flat(tree)
    rest = [treedef.flatten_up_to(other) for other in others]
    return treedef.unflatten([fn(*found) for found in zip(leaves, *rest, strict=True)])


def keep(like: Tree, tree: Tree) -> Tree:
    """What stands in `tree`, whatever it is, where `like` has something."""
    return map_places(lambda there, found: None if there is None else found, like, tree)


def join(one: Tree, other: Tree) -> Tree:
    """Inverse of `divide`: what stands in `other`, and in `one` where it has nothing."""
    return map_places(lambda a, b: a if b is None else b, one, other)


def is_there(tree: Tree) -> list[bool]:
    """Whether something stands in each place."""
    return [leaf is not None for leaf in jax.tree.leaves(tree, is_leaf=is_place)]


def is_empty(tree: Tree) -> bool:
    """Whether there is no array in it."""
    return not jax.tree.leaves(tree)


def stack(trees: Sequence[Tree]) -> Tree:
    """Trees joined along a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def check_arrays(tree: Tree, what: str) -> None:
    """Refuses weights that cannot be trained.

    Raises:
      TypeError: a leaf is no array of floating or complex numbers.
      ValueError: there is no leaf.
    """
    for path, leaf in places(tree):
        if leaf is None:
            continue
        kind = getattr(leaf, "dtype", None)
        if kind is None or not hasattr(leaf, "shape"):
            raise TypeError(
                f"{what}: every leaf must be an array, but {path!r} is {type(leaf).__name__}; keep "
                "what is not trained out of it (nnx.split, eqx.partition)"
            )
        if not jnp.issubdtype(kind, jnp.inexact):
            raise TypeError(
                f"{what}: every leaf must have a floating type, but {path!r} is {kind}; keep what "
                "is not trained in model_state"
            )
    if is_empty(tree):
        raise ValueError(f"{what}: must have at least one array, but is {tree!r}")
    names = [path for path, _ in places(tree)]
    if twice := {path for path in names if names.count(path) > 1}:
        raise ValueError(f"{what}: leaves must have different paths, not so {min(twice)!r}")


def _flat(tree: Tree) -> tuple[list[Any], Any]:
    """What stands in each place, and the structure."""
    return jax.tree.flatten(tree, is_leaf=is_place)
