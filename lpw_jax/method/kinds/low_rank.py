"""Late-phase low-rank additions to shared weights, for members of a network trained before."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from lpw_jax.method.kinds.part import Kind, Made, Part, Places, chosen, need_key
from lpw_jax.method.selection import Selection


def low_rank(rank: int, *selection: Any) -> "LowRank":
    """Members add A B to shared weights: A random, B zero at first (Hu et al., 2022).

    A weight [..., n] is taken as a matrix [m, n]; A is [m, rank], B [rank, n]. All members start
    from the same A, plus the noise of the release. Collapse: the mean of the effective weights,
    W + mean(A B), which is in general no product of means.
    To train the additions alone, give `optax.set_to_zero()` as `shared_optimizer`, and release
    before the first step.

    Args:
      rank: >= 1.
      *selection: as in `copies`; weights of at least two axes.

    Raises:
      ValueError: a `rank` below 1.
    """
    if rank < 1:
        raise ValueError(f"low_rank: rank must be >= 1, got {rank}")
    return LowRank(selection, rank)


@dataclasses.dataclass(frozen=True)
class LowRank(Kind):
    """See `low_rank`."""

    selection: Selection
    rank: int

    def make(self, params: Any, key: jax.Array | None) -> Made:
        """As in `Kind`; A is normal with variance 1 / m."""
        weights = chosen(params, self.selection, "low_rank")
        keys = jax.random.split(need_key(key, "low_rank"), len(weights))

        def addition(path, weight, key):
            if weight.ndim < 2:
                raise ValueError(
                    f"low_rank: a weight must have at least two axes, but {path!r} has shape "
                    f"{weight.shape}"
                )
            outputs = weight.shape[-1]
            inputs = weight.size // outputs
            left = jax.random.normal(key, (inputs, self.rank), weight.dtype) * inputs**-0.5
            return Addition(left, jnp.zeros((self.rank, outputs), weight.dtype))

        return {
            path: (weight, addition(path, weight, key))
            for (path, weight), key in zip(weights.items(), keys, strict=True)
        }


@functools.partial(jax.tree_util.register_dataclass, data_fields=["left", "right"], meta_fields=[])
@dataclasses.dataclass(frozen=True)
class Addition(Part):
    """A member's A [m, rank] and B [rank, n]."""

    left: jax.Array
    right: jax.Array

    def combine(self, shared: jax.Array, places: Places) -> jax.Array:
        """As in `Part`."""
        return shared + _product(self.left, self.right).reshape(shared.shape)

    def collapse(self, shared: jax.Array, places: Places) -> jax.Array:
        """As in `Part`."""
        return shared + _product(self.left, self.right).mean(0).reshape(shared.shape)


def _product(left: jax.Array, right: jax.Array) -> jax.Array:
    return jnp.matmul(left, right, precision="highest")
