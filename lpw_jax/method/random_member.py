"""Minibatches that go to members at random, with a shared update after each."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from lpw_jax.method import arguments
from lpw_jax.method.gradients import check_batch
from lpw_jax.method.keys import make_key, one_stream, typed
from lpw_jax.method.late_phase import LatePhase
from lpw_jax.method.state import State
from lpw_jax.method.trees import Tree

_OF_MEMBERS = ("members", "member_model_state", "member_opt_state")
_PURPOSE = 2**32 - 1  # folded into a step's key, where members fold in their numbers


class RandomMember(LatePhase):
    """`LatePhase`, but that after the release each minibatch trains one member, drawn at random.

    The published code's `inner_training=False`. A step still takes K minibatches, one after the
    other, but each goes to any member with equal probability, and shared weights are updated after
    every one, by its gradient alone. Other members rest: none coasts. Metrics [K] are those of the
    minibatches in turn. Members cannot be divided over devices.
    """

    def step(
        self,
        state: State,
        batch: Tree,
        key: jax.Array | None = None,
        *,
        shared_args: Mapping[str, Any] | None = None,
        member_args: Mapping[str, Any] | None = None,
    ) -> tuple[State, dict[str, Any]]:
        """As `LatePhase.step`; members are drawn by `key` (None: by a fixed one) and the step."""
        arguments.check_call("step", state, key)
        one = super().step
        if not state.is_released:
            return one(state, batch, key, shared_args=shared_args)
        if self.member_axis:
            raise ValueError(
                "member_axis: must be None where members are drawn at random, got "
                f"{self.member_axis!r}"
            )
        num_members = state.num_members
        check_batch(batch, num_members, self.num_microbatches)

        def train_one(state, minibatch):
            draws = jax.random.fold_in(make_key(0) if key is None else typed(key), state.step)
            draws = jax.random.fold_in(draws, jnp.uint32(_PURPOSE))
            with one_stream():
                chosen = jax.random.randint(draws, (), 0, num_members, dtype=jnp.int32)
            everyone = {name: getattr(state, name) for name in _OF_MEMBERS}
            alone = jax.tree.map(
                lambda leaf: jax.lax.dynamic_index_in_dim(leaf, chosen, keepdims=True), everyone
            )
            after, metrics = one(
                state.replace(**alone),
                jax.tree.map(lambda leaf: leaf[None], minibatch),
                key,
                shared_args=shared_args,
                member_args=member_args,
            )
            together = jax.tree.map(
                lambda leaf, new: jax.lax.dynamic_update_index_in_dim(leaf, new[0], chosen, 0),
                everyone,
                {name: getattr(after, name) for name in _OF_MEMBERS},
            )
            return after.replace(**together), jax.tree.map(lambda leaf: leaf[0], metrics)

        return jax.lax.scan(train_one, state, batch)
