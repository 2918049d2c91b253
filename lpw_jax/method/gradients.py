"""The gradients of a cycle over all devices, and the model state after it."""

import functools
from typing import Any

import jax
import jax.numpy as jnp

from lpw_jax.method import devices, trees
from lpw_jax.method import model_state as ms
from lpw_jax.method.cycle import Gradients
from lpw_jax.method.state import State
from lpw_jax.method.trees import Tree


def gradients(
    method: Any,
    state: State,
    batch: Tree,
    key: jax.Array | None,
    members: jax.Array,
    num_members: int,
) -> tuple[Tree, Tree, dict[str, Any], dict[str, Tree]]:
    """A cycle's gradients over all devices.

    Args:
      method: the `LatePhase`.
      batch, key: as in its `step`.
      members, num_members: as in `devices.members_here`.

    Returns:
      gradients of shared weights, summed over members, and of members; metrics of all members; the
      model states after the cycle, by their names in `State`.
    """
    axes = [axis for axis in (method.batch_axis, method.member_axis) if axis]
    keys = None
    if key is not None:
        key = jax.random.fold_in(key, state.step)
        if method.batch_axis:
            key = jax.random.fold_in(key, jax.lax.axis_index(method.batch_axis))
        keys = jax.vmap(lambda k: jax.random.fold_in(key, k))(members)
    of_device = Gradients(method.loss_fn, method.member_mode, method.num_microbatches)
    with jax.named_scope("members"):
        shared, own = devices.varying((state.shared, state.members), axes)
        cycle = of_device(
            shared,
            own,
            devices.varying(state.shared_model_state, axes),
            devices.varying(state.member_model_state, axes),
            batch,
            keys,
        )
    with jax.named_scope("all_reduce"):
        of_all = functools.partial(
            devices.of_all_members,
            members=members,
            num_members=num_members,
            axis=method.member_axis,
        )
        own_seen = trees.keep(state.member_model_state, cycle.observed)
        shared_seen = trees.keep(state.shared_model_state, cycle.observed)
        in_turn = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), shared_seen)
        in_turn = of_all(in_turn)
        own = cycle.member_grads, (cycle.shared_news, cycle.member_news)
        of_cycle = cycle.shared_grads, of_all(cycle.metrics)
        # One all-reduce serves all that goes over the same devices.
        if method.batch_axis and method.member_axis:
            of_cycle = devices.mean_and_total(of_cycle, method.batch_axis, method.member_axis)
            own = devices.mean(own, method.batch_axis)
            in_turn = devices.total(in_turn, method.member_axis)
        else:
            of_cycle, own = devices.mean((of_cycle, own), method.batch_axis)
            of_cycle, in_turn = devices.total((of_cycle, in_turn), method.member_axis)
        (shared_grads, metrics), (member_grads, news) = of_cycle, own
    with jax.named_scope("model_state"):
        if method.member_axis and not trees.is_empty(news[0]):
            changed = next(path for path, new in trees.places(news[0]) if new is not None)
            raise ValueError(
                "member_axis: members on different devices cannot change the state of shared "
                f"layers in turn, such as {changed!r}; let the layer return lpw_jax.Observed, or "
                "make it members' own (member_state)"
            )
        in_turn = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), in_turn)
        shared_state = trees.join(state.shared_model_state, news[0])
        member_state = trees.join(state.member_model_state, news[1])
        states = {
            "shared_model_state": ms.follow_in_turn(shared_state, in_turn),
            "member_model_state": ms.follow_in_turn(member_state, own_seen),
        }
    return shared_grads, member_grads, metrics, states


def check_batch(batch: Tree, num_members: int, num_microbatches: int) -> None:
    """Refuses arrays that are not [K, B, ...], as `LatePhase.step` says."""
    if trees.is_empty(batch):
        raise ValueError(f"batch: must have at least one array, got {batch!r}")
    for path, leaf in trees.places(batch):
        shape, name = jnp.shape(leaf), repr(path) if path else "the batch"
        if leaf is not None and (not shape or shape[0] != num_members):
            raise ValueError(
                f"batch: every array must be [K, B, ...] with K = {num_members} members"
                f"{'' if num_members > 1 else ' (before the release K is 1)'}, but "
                f"{name} has shape {shape}"
            )
        if num_microbatches > 1 and shape and (len(shape) < 2 or shape[1] % num_microbatches):
            raise ValueError(
                f"batch: B must be divisible by num_microbatches = {num_microbatches}, but "
                f"{name} has shape {shape}"
            )
