"""Noise that sets members apart at their release."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp

from lpw_jax.method import keys

Tree = Any


def perturb(key: jax.Array, members: Tree, sigma: float) -> Tree:
    """Adds Gaussian noise of standard deviation sigma * rms(array of the member), per member."""

    def noisy(path, leaf):
        # Keyed by name and member, so that noise depends neither on which other leaves are
        # late-phase nor on where a member is placed.
        name = jax.tree_util.keystr(path)
        leaf_key = jax.random.fold_in(key, zlib.crc32(name.encode()))

        def one(k, weight):
            noise = jax.random.normal(jax.random.fold_in(leaf_key, k), weight.shape, weight.dtype)
            return weight + sigma * jnp.sqrt(jnp.square(weight).mean()) * noise

        return jax.vmap(one)(jnp.arange(leaf.shape[0], dtype=jnp.int32), leaf)

    key = keys.typed(key)
    with keys.one_stream():
        return jax.tree_util.tree_map_with_path(noisy, members)
