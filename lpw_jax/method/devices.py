"""Collectives of a step that runs on several devices, under `pmap` or `shard_map`."""

import contextlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

Tree = Any


def members_here(num_here: int, axis: str | None) -> tuple[jax.Array, int]:
    """Which members this device has, int32 [num_here] out of 0..K-1, and K.

    `axis` is the device axis over which members are divided, None if they are not.
    """
    members = jnp.arange(num_here, dtype=jnp.int32)
    if axis is None:
        return members, num_here
    first = jax.lax.axis_index(axis).astype(jnp.int32) * num_here
    return members + first, num_here * jax.lax.axis_size(axis)


def varying(tree: Tree, axes: Sequence[str]) -> Tree:
    """Weights whose gradients stay each device's own.

    `shard_map` sums gradients of weights that all devices have alike, unless it is told that they
    may differ; elsewhere nothing happens.
    """

    axes = [axis for axis in axes if axis in jax.sharding.get_abstract_mesh().manual_axes]

    def cast(leaf):
        for axis in axes:
            # Refused where it varies already.
            with contextlib.suppress(ValueError):
                leaf = jax.lax.pcast(leaf, axis, to="varying")
        return leaf

    return jax.tree.map(cast, tree)


def zeros_like(tree: Tree) -> Tree:
    """Zeros that vary over the same axes, as the carry of a loop must."""

    def zeros(leaf):
        return jnp.where(False, leaf, jnp.zeros_like(leaf))

    return jax.tree.map(zeros, tree)


def mean(tree: Tree, axis: str | None) -> Tree:
    """Over devices; of what is not floating, the greatest."""
    if axis is None:
        return tree

    def over_devices(leaf):
        floating = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return (jax.lax.pmean if floating else jax.lax.pmax)(leaf, axis)

    return jax.tree.map(over_devices, tree)


def of_all_members(own: Tree, members: jax.Array, num_members: int, axis: str | None) -> Tree:
    """This device's members' arrays [K, ...], zeros for the others, for a sum over `axis`."""
    if axis is None:
        return own
    return jax.tree.map(
        lambda leaf: jnp.zeros((num_members, *leaf.shape[1:]), leaf.dtype).at[members].set(leaf),
        own,
    )


def total(tree: Tree, axis: str | None) -> Tree:
    """The sum over devices."""
    return tree if axis is None else jax.lax.psum(tree, axis)


def mean_and_total(tree: Tree, batch_axis: str, member_axis: str) -> Tree:
    """The `total` over one axis of the `mean` over another, by one all-reduce of all devices."""
    leaves, structure = jax.tree.flatten(tree)
    floating = [jnp.issubdtype(leaf.dtype, jnp.inexact) for leaf in leaves]
    sums = jax.lax.psum(
        [leaf for leaf, sums in zip(leaves, floating, strict=True) if sums],
        (member_axis, batch_axis),
    )
    size, sums = jax.lax.axis_size(batch_axis), iter(sums)
    found = [
        next(sums) / size if is_sum else total(mean(leaf, batch_axis), member_axis)
        for leaf, is_sum in zip(leaves, floating, strict=True)
    ]
    return jax.tree.unflatten(structure, found)


def gather(tree: Tree) -> Tree:
    """Arrays with all that other devices have of them, where their types say how they are divided.

    JAX takes no elements out of such arrays (explicit sharding); elsewhere nothing happens.
    """

    def whole(leaf):
        sharding = jax.typeof(leaf).sharding
        if not any(sharding.spec):
            return leaf
        return jax.reshard(leaf, NamedSharding(sharding.mesh, PartitionSpec()))

    return jax.tree.map(whole, tree)
