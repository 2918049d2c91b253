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
    def of_member(name, k):
        return jax.random.fold_in(jax.random.fold_in(key, name), k)

    def noisy(own, weight):
        noise = jax.random.normal(own, weight.shape, weight.dtype)
        return weight + sigma * jnp.sqrt(jnp.square(weight).mean()) * noise

    paths, structure = jax.tree_util.tree_flatten_with_path(members)
    if not paths:
        return members
    names = [zlib.crc32(jax.tree_util.keystr(path).encode()) for path, _ in paths]
    leaves = [leaf for _, leaf in paths]
    alike: dict[Any, list[int]] = {}
    for i, leaf in enumerate(leaves):
        alike.setdefault((leaf.shape, leaf.dtype) if leaf.size <= SMALL else i, []).append(i)
    key = keys.typed(key)
    with keys.one_stream():
        of_members = jax.vmap(jax.vmap(of_member, (None, 0)), (0, None))(
            jnp.array(names, jnp.uint32), jnp.arange(len(leaves[0]), dtype=jnp.int32)
        )
        for group in alike.values():
            stacked = jnp.stack([leaves[i] for i in group])
            found = jax.vmap(jax.vmap(noisy))(of_members[jnp.array(group)], stacked)
            for i, leaf in zip(group, found, strict=True):
                leaves[i] = leaf
    return jax.tree.unflatten(structure, leaves)
