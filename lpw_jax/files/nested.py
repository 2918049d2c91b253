"""Pytrees as nested dicts of arrays, as they are on disk, and back."""

from typing import Any

import jax


def to_nested(tree: Any) -> dict[str, Any]:
    """Every array under the names on its path; places without an array are left out."""
    nested: dict[str, Any] = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        *inner, last = _names(path)
        place = nested
        for name in inner:
            place = place.setdefault(name, {})
        place[last] = leaf
    return nested


def from_nested(nested: dict[str, Any], like: Any) -> Any:
    """Inverse of `to_nested`: the arrays in the structure of `like`.

    Raises:
      KeyError: an array is missing, or there is one too many, which is named.
    """
    paths, treedef = jax.tree_util.tree_flatten_with_path(like)
    names = ["/".join(_names(path)) for path, _ in paths]
    found = {"/".join(_names(path)): leaf for path, leaf in jax.tree.leaves_with_path(nested)}
    if other := sorted(found.keys() ^ set(names)):
        raise KeyError(other[0])
    return treedef.unflatten([found[name] for name in names])


def _names(path: Any) -> list[str]:
    return [jax.tree_util.keystr((key,), simple=True) for key in path]
