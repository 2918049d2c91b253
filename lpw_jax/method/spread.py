"""How far members are apart."""

from typing import Any

import jax
import jax.numpy as jnp


def member_distance(members: Any, axis: str | None = None) -> jax.Array:
    """The mean over members of |phi_k - mean| / |mean|, a scalar.

    Norms are over all arrays of `members` [K, ...], `mean` is that of the members. `axis` is the
    device axis over which members are divided, None if they are not.
    """

    def over_members(x):
        mean = x.mean(0)
        return mean if axis is None else jax.lax.pmean(mean, axis)

    def norms(tree):  # of arrays [K, ...] or [1, ...], for each member
        squares = [jnp.square(leaf).reshape(leaf.shape[0], -1).sum(1) for leaf in tree]
        return jnp.sqrt(sum(squares))

    leaves = jax.tree.leaves(members)
    means = [over_members(leaf)[None] for leaf in leaves]
    apart = norms([leaf - mean for leaf, mean in zip(leaves, means, strict=True)])
    return over_members(apart) / norms(means)[0]
