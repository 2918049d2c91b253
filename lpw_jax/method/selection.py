"""Which leaves of a tree are meant: by patterns on their paths, a predicate, or a tree of bools."""

import re
from collections.abc import Callable
from typing import Any

import jax

from lpw_jax.method import trees

# Patterns, one predicate (path, leaf) -> bool, or one tree of bools.
Selection = tuple[str | Callable[[str, Any], bool] | Any, ...]


def select(tree: Any, selection: Selection, what: str) -> list[bool]:
    """Whether each place of `tree` is meant; empty ones never are.

    Args:
      tree: any pytree.
      selection: regular expressions, each matched against whole paths ('/'-joined, such as
        'encoder/norm/scale'); or one function of path and leaf; or one tree of bools, with the
        structure of `tree` or of its upper part.
      what: names the selection in errors.

    Raises:
      ValueError: nothing is meant, by a pattern or at all; the tree of bools does not fit.
    """
    found = trees.places(tree)
    there = [path for path, leaf in found if leaf is not None]
    some = f"the {len(there)} leaves there are, such as {', '.join(sorted(there)[-5:])}"
    patterns = [pattern for pattern in selection if isinstance(pattern, str)]
    if patterns and len(patterns) == len(selection):
        chosen = set()
        for pattern in patterns:
            matches = {path for path in there if re.fullmatch(pattern, path)}
            if not matches:
                raise ValueError(
                    f"{what}: every pattern must match a leaf's whole path, but {pattern!r} "
                    f"matches none of {some}"
                )
            chosen |= matches
        return [leaf is not None and path in chosen for path, leaf in found]
    if len(selection) != 1:
        raise ValueError(
            f"{what}: must be patterns, or one predicate, or one tree of bools; got {selection!r}"
        )
    (rule,) = selection
    # Equinox modules are callable, and trees as well.
    if callable(rule) and not any(isinstance(leaf, bool) for leaf in jax.tree.leaves(rule)):
        mask = [leaf is not None and bool(rule(path, leaf)) for path, leaf in found]
    else:
        mask = _fitting(rule, tree, what)
        mask = [leaf is not None and chosen for (_, leaf), chosen in zip(found, mask, strict=True)]
    if not any(mask):
        raise ValueError(f"{what}: must choose at least one of {some}")
    return mask


def _fitting(rule: Any, tree: Any, what: str) -> list[bool]:
    """A tree of bools, spread over `tree`."""
    try:
        spread = jax.tree.broadcast(rule, tree, is_leaf=trees.is_place)
    except ValueError as error:
        raise ValueError(
            f"{what}: a tree of bools must have the structure of the tree it chooses from, or of "
            f"its upper part; got {jax.tree.structure(rule)}, for {trees.structure(tree)}"
        ) from error
    mask = jax.tree.leaves(spread, is_leaf=trees.is_place)
    for leaf in mask:
        if leaf not in (True, False, None):
            raise ValueError(f"{what}: a tree of bools must hold bools only, but has {leaf!r}")
    return [bool(leaf) for leaf in mask]
