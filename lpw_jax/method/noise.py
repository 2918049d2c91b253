"""Noise that sets members apart at their release."""

import zlib
from typing import Any

import jax
import jax.numpy as jnp

from lpw_jax.method import keys

Tree = Any

# Numbers in an array up to which arrays of one shape get their noise at once. Networks have many
# small ones, and what draws numbers takes long to compile; large ones would take memory twice.
SMALL = 2**16


def perturb(key: jax.Array, members: Tree, sigma: float) -> Tree:
    """Adds Gaussian noise of standard deviation sigma * rms(array of the member), per member."""

    # Keyed by name and member, so that noise depends neither on which other leaves are
    # late-phase nor on where a member is placed.
    def noisy(name, k, weight):
        own = jax.random.fold_in(jax.random.fold_in(key, name), k)
        noise = jax.random.normal(own, weight.shape, weight.dtype)
        return weight + sigma * jnp.sqrt(jnp.square(weight).mean()) * noise

    of_arrays = jax.vmap(jax.vmap(noisy, (None, 0, 0)), (0, None, 0))
    paths, structure = jax.tree_util.tree_flatten_with_path(members)
    names = [zlib.crc32(jax.tree_util.keystr(path).encode()) for path, _ in paths]
    leaves = [leaf for _, leaf in paths]
    alike: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        alike.setdefault((leaf.shape, leaf.dtype) if leaf.size <= SMALL else i, []).append(i)
    key = keys.typed(key)
    with keys.one_stream():
        for group in alike.values():
            found = of_arrays(
                jnp.array([names[i] for i in group], jnp.uint32),
                jnp.arange(len(leaves[group[0]]), dtype=jnp.int32),
                jnp.stack([leaves[i] for i in group]),
            )
            for i, leaf in zip(group, found, strict=True):
                leaves[i] = leaf
    return jax.tree.unflatten(structure, leaves)
