"""Late-phase weights: which they are, how they are released, and how they become one network.

Collections, all nested dicts of arrays: `shared` (theta), `late_phase` (phi, every leaf [K, ...])
and `batch_stats` ([K, ...]). Before the release K is 1.
"""

import re
import zlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from lpw_jax.errors import UserError
from lpw_jax.models.layers import BATCH_NORM_EPSILON

Tree = dict[str, Any]


def split(params: Tree, patterns: Sequence[str]) -> tuple[Tree, Tree]:
    """Divides `params` into (shared, late-phase), the latter still without a member axis.

    A leaf is late-phase if one of `patterns` matches its whole '/'-joined path, for example
    'group0_block0/bn1/scale'.

    Raises:
      UserError: a pattern matches nothing.
    """
    flat = flatten_dict(params, sep="/")
    late = set()
    for pattern in patterns:
        matches = {path for path in flat if re.fullmatch(pattern, path)}
        if not matches:
            raise UserError(
                f"late_phase.patterns: every pattern must match a parameter, but {pattern!r} "
                f"matches none of the {len(flat)}, such as {', '.join(sorted(flat)[-5:])}"
            )
        late |= matches
    return (
        unflatten_dict({p: leaf for p, leaf in flat.items() if p not in late}, sep="/"),
        unflatten_dict({p: leaf for p, leaf in flat.items() if p in late}, sep="/"),
    )


def merge(shared: Tree, late_phase: Tree) -> Tree:
    """Inverse of `split` for one member: the network's `params`."""
    return unflatten_dict({**flatten_dict(shared), **flatten_dict(late_phase)})


def num_members(late_phase: Tree) -> int:
    """K."""
    return jax.tree.leaves(late_phase)[0].shape[0]


def member(tree: Tree, k: int) -> Tree:
    """Member `k` of a tree of [K, ...] leaves."""
    return jax.tree.map(lambda leaf: leaf[k], tree)


def member_indices(num_here: int, axis_name: str | None) -> tuple[jax.Array, int]:
    """Which members a device computes: int32 [num_here] out of 0..K-1, and K.

    `axis_name` is the pmap axis over which the member axis is divided, None if it is not.
    """
    members = jnp.arange(num_here, dtype=jnp.int32)
    if axis_name is None:
        return members, num_here
    first = jax.lax.axis_index(axis_name).astype(jnp.int32) * num_here
    return members + first, num_here * jax.lax.axis_size(axis_name)


def stack(trees: Sequence[Tree]) -> Tree:
    """Members' trees joined along a new leading axis."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def copy_members(tree: Tree, num_members: int) -> Tree:
    """The one member of `tree` ([1, ...] leaves) copied to [num_members, ...]."""
    return jax.tree.map(lambda leaf: jnp.repeat(leaf, num_members, axis=0), tree)


def perturb(key: jax.Array, late_phase: Tree, sigma: float) -> Tree:
    """Adds Gaussian noise of standard deviation sigma * rms(leaf of the member), per member."""

    def noisy(path, leaf):
        # Keyed by name and member, so that noise depends neither on which other leaves are
        # late-phase nor on where a member is placed.
        name = jax.tree_util.keystr(path)
        leaf_key = jax.random.fold_in(key, zlib.crc32(name.encode()))

        def one(k, weight):
            noise = jax.random.normal(jax.random.fold_in(leaf_key, k), weight.shape, weight.dtype)
            return weight + sigma * jnp.sqrt(jnp.square(weight).mean()) * noise

        return jax.vmap(one)(jnp.arange(leaf.shape[0], dtype=jnp.int32), leaf)

    return jax.tree_util.tree_map_with_path(noisy, late_phase)


def member_distance(late_phase: Tree, axis_name: str | None = None) -> jax.Array:
    """How far apart members are: the mean over members of |phi_k - mean| / |mean|, a scalar.

    Norms are over all late-phase leaves [K, ...], `mean` is that of the members. `axis_name` is as
    in `member_indices`.
    """

    def over_members(x):
        mean = x.mean(0)
        return mean if axis_name is None else jax.lax.pmean(mean, axis_name)

    def norms(tree):  # of leaves [K, ...] or [1, ...], for each member
        squares = [jnp.square(leaf).reshape(leaf.shape[0], -1).sum(1) for leaf in tree]
        return jnp.sqrt(sum(squares))

    leaves = jax.tree.leaves(late_phase)
    means = [over_members(leaf)[None] for leaf in leaves]
    apart = norms([leaf - mean for leaf, mean in zip(leaves, means, strict=True)])
    return over_members(apart) / norms(means)[0]


def coasting_steps(rule: str, num_members: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Zero-gradient optimiser steps that each member takes (before, after) its own in a cycle.

    A coasting step goes on with momentum and weight decay. The published code has two rules, under
    PyTorch 1.4: in 'reference', that of CIFAR, every optimiser steps at member 0's turn; in
    'every_minibatch', that of ImageNet, one optimiser holds all members, which step at every turn.
    'none' is Algorithm 1 of the paper.

    Raises:
      ValueError: unknown `rule`.
    """
    members, none = range(num_members), (0,) * num_members
    if rule == "none":
        return none, none
    if rule == "reference":
        return tuple(int(k > 0) for k in members), none
    if rule == "every_minibatch":
        return tuple(members), tuple(reversed(members))
    raise ValueError(
        f"late_phase.coasting: must be 'reference', 'every_minibatch' or 'none', got {rule!r}"
    )


@jax.jit
def collapse(shared: Tree, late_phase: Tree, batch_stats: Tree) -> Tree:
    """K members as one ordinary network: `{'params', 'batch_stats'}` of the same model.

    Each batch norm becomes the mean of the members' effective affine maps, scale
    gamma / sqrt(var + eps) and shift beta - mean * scale, written as a batch norm with mean 0,
    variance 1 and its scale times sqrt(1 + eps). Every other late-phase leaf becomes its mean over
    members. In evaluation mode the result is the reference's averaged model, to rounding.
    """
    late = flatten_dict(late_phase)
    params = {**flatten_dict(shared), **jax.tree.map(lambda leaf: leaf.mean(0), late)}
    stats = flatten_dict(batch_stats)
    for *module, name in list(stats):
        if name != "var":
            continue
        scale_path, bias_path = (*module, "scale"), (*module, "bias")
        mean_path, var_path = (*module, "mean"), (*module, "var")
        mean, var = stats[mean_path], stats[var_path]
        # Shared scales and shifts have no member axis: [None] lets them meet the [K, C] statistics.
        gamma = late[scale_path] if scale_path in late else params[scale_path][None]
        beta = late[bias_path] if bias_path in late else params[bias_path][None]
        scale = gamma / jnp.sqrt(var + BATCH_NORM_EPSILON)
        shift = beta - mean * scale
        params[scale_path] = scale.mean(0) * jnp.sqrt(1.0 + BATCH_NORM_EPSILON).astype(scale.dtype)
        params[bias_path] = shift.mean(0)
        stats[mean_path], stats[var_path] = jnp.zeros_like(mean[0]), jnp.ones_like(var[0])
    return {"params": unflatten_dict(params), "batch_stats": unflatten_dict(stats)}
