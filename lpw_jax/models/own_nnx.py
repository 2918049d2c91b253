"""A flax.nnx module of one's own as a pure function of nested dicts."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from lpw_jax.method import trees
from lpw_jax.method.kinds.rank_one import Factored
from lpw_jax.method.model_state import Observed

_KINDS = (nnx.Param, nnx.BatchStat, nnx.RngState, ...)


class Nnx:
    """See `own.OwnNetwork`.

    Args:
      build: makes the module with an `nnx.Rngs`.

    Attributes:
      module: with shapes in the place of arrays.
      wrong: the rule that it breaks; '' if it breaks none.
    """

    def __init__(self, build: Callable[[nnx.Rngs], Any]):
        self._build, self.wrong = build, ""
        given = []

        def shapes():
            given.append(build(nnx.Rngs(0)))
            return given[0] if isinstance(given[0], nnx.Module) else None

        self.module = nnx.eval_shape(shapes)
        if self.module is None:
            self.wrong = f"must give a flax.nnx Module, since it takes rngs, not {given[0]!r}"
            return
        self._graph, *states, others = nnx.split(self.module, *_KINDS)
        self._params, self._stats, self._random = map(_Places, states)
        if kinds := sorted({type(v).__name__ for _, v in nnx.to_flat_state(others)}):
            self.wrong = f"must have no variables but nnx.Param and nnx.BatchStat, not {kinds}"

    def init(self, key: jax.Array, images: jax.Array, *, options: dict) -> dict[str, Any]:
        """`params` and `batch_stats`."""
        _, params, stats, *_ = nnx.split(self._build(nnx.Rngs(key)), *_KINDS)
        return {"params": self._params.to_dict(params), "batch_stats": self._stats.to_dict(stats)}

    def apply(
        self,
        variables: dict[str, Any],
        images: jax.Array,
        *,
        train: bool,
        rngs: Any,
        on_norm: Callable[[str, Any], None],
        options: dict,
    ) -> tuple[jax.Array, dict[str, Any]]:
        """Logits, and what was written. Weights may be `Factored`."""
        params = {
            path: leaf.effective() if isinstance(leaf, Factored) else leaf
            for path, leaf in flatten_dict(variables["params"]).items()
        }
        # Memory is estimated without statistics.
        none = {path: jnp.zeros(x.shape, x.dtype) for path, x in self._stats.leaves.items()}
        before = none | flatten_dict(variables.get("batch_stats", {}))
        key = rngs["dropout"] if rngs else jax.random.key(0)
        # A new object, which nobody else sees changed.
        model = nnx.merge(
            self._graph,
            self._params.to_state(params),
            self._stats.to_state(before),
            self._random.to_state(self._drawn(key)),
        )
        if not options:
            model.train() if train else model.eval()
        momenta = _without_memory(model, on_norm) if train else {}
        logits = model(images, **options)
        if not train:
            return logits, {}
        after = flatten_dict(self._stats.to_dict(nnx.state(model, nnx.BatchStat)))
        for path, seen in after.items():
            momentum = momenta.get(path[:-1])
            if momentum is not None and seen is not before[path]:
                after[path] = Observed(seen.astype(before[path].dtype), 1 - momentum)
        return logits, {"batch_stats": unflatten_dict(after)}

    def _drawn(self, key: jax.Array) -> dict[tuple[str, ...], jax.Array]:
        """Random streams that begin with this key, each with another one."""
        drawn = {}
        for number, (path, like) in enumerate(self._random.leaves.items()):
            if jnp.issubdtype(like.dtype, jax.dtypes.prng_key):
                own = jax.random.fold_in(key, number)
                drawn[path] = jax.random.split(own, like.shape) if like.shape else own
            else:  # how many were drawn
                drawn[path] = jnp.zeros(like.shape, like.dtype)
        return drawn


class _Places:
    """An `nnx.State` of shapes, for such states as nested dicts with names as keys, and back."""

    def __init__(self, state: nnx.State):
        self.leaves = {tuple(path.split("/")): leaf for path, leaf in trees.places(state)}
        self._structure = jax.tree.structure(state)

    def to_dict(self, state: nnx.State) -> dict[str, Any]:
        return unflatten_dict(dict(zip(self.leaves, jax.tree.leaves(state), strict=True)))

    def to_state(self, flat: dict[tuple[str, ...], Any]) -> nnx.State:
        # Layers of nnx cannot compute with numpy's.
        return self._structure.unflatten([jnp.asarray(flat[path]) for path in self.leaves])


def _without_memory(model: nnx.Module, on_norm: Callable) -> dict[tuple[str, ...], float]:
    """Makes batch norms keep the batch's own statistics; returns the momenta they had, by path."""
    momenta = {}
    for path, layer in nnx.iter_modules(model):
        path = tuple(map(str, path))
        tell = functools.partial(on_norm, "/".join(path), layer)
        if isinstance(layer, nnx.BatchNorm):
            momenta[path], layer.momentum = layer.momentum, 0.0
            layer.promote_dtype = _telling(layer.promote_dtype, tell)  # once in every call
        elif any(isinstance(value, nnx.BatchStat) for value in vars(layer).values()):
            tell()
    return momenta


def _telling(function: Callable, tell: Callable[[], None]) -> Callable:
    def told(*args, **kwargs):
        tell()
        return function(*args, **kwargs)

    return told
