"""Parameters divided by kinds into what members share and what is their own."""

from collections.abc import Sequence
from typing import Any

import jax

from lpw_jax.method import trees
from lpw_jax.method.keys import one_stream, typed
from lpw_jax.method.kinds.part import Kind

Tree = Any


def divide(params: Tree, kinds: Sequence[Kind], key: jax.Array | None) -> tuple[Tree, Tree]:
    """`params` as (shared, one member's own), both of its structure.

    Raises:
      TypeError, ValueError: `params` cannot be trained; a kind cannot have its weights; two kinds
        choose the same one.
    """
    trees.check_arrays(params, "params")
    made: dict[str, tuple[Any, Any]] = {}
    with one_stream():
        keys = [None] * len(kinds) if key is None else jax.random.split(typed(key), len(kinds))
        for kind, own_key in zip(kinds, keys, strict=True):
            found = kind.make(params, own_key)
            if twice := sorted(made.keys() & found.keys()):
                raise ValueError(
                    f"late_phase: a weight must be of one kind, but {twice[0]!r} is chosen by two"
                )
            made |= found
    paths = iter([path for path, _ in trees.places(params)])
    both = trees.map_places(lambda leaf: made.get(next(paths), (leaf, None)), params)
    return tuple(trees.map_places(lambda _, pair, i=i: pair[i], params, both) for i in range(2))
