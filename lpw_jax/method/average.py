"""Averages of weights over training: SWA (Izmailov et al., 2018) and EMA."""

import dataclasses
from collections.abc import Callable
from typing import Any, Self

import jax
import jax.numpy as jnp

from lpw_jax.method import arguments, cycle, devices, trees
from lpw_jax.method import model_state as ms
from lpw_jax.method.kinds.part import combine
from lpw_jax.method.state import State
from lpw_jax.method.trees import Tree


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Average:
    """A mean of weights over time; members are averaged each on its own.

    Attributes:
      count: states averaged, int32 scalar.
      state: a state to predict with or to collapse, not to train: `shared` and `members` are the
        means, optimisers are None, all else is that of the last state that was added. So batch
        norm's statistics are not yet those of the averaged weights; `statistics_step` makes them
        so.
    """

    count: jax.Array
    state: State

    @classmethod
    def start(cls, state: State) -> Self:
        """Of no state yet."""
        arguments.check_state(state, "Average.start")
        zeros = jax.tree.map(jnp.zeros_like, (state.shared, state.members))
        return cls(jnp.zeros((), jnp.int32), _with_weights(state, *zeros))

    def add(self, state: State, *, decay: float | None = None) -> Self:
        """With the weights of `state`.

        Args:
          decay: None for the mean of all states (SWA): average += (weight - average) / count.
            A number in [0, 1) for an exponential moving average, decay * average +
            (1 - decay) * weight, that starts at its first state.

        Raises:
          ValueError: another `decay`; another number of members than before.
        """
        arguments.check_state(state, "Average.add")
        if decay is not None and not 0 <= decay < 1:
            raise ValueError(f"decay: must be in [0, 1), got {decay}")
        if self.state.num_members != state.num_members:
            raise ValueError(
                f"state: must have the {self.state.num_members} members that were averaged before, "
                f"got {state.num_members}; start a new average at the release"
            )
        count = self.count + 1

        def moved(average, weight):
            if decay is None:
                return average + (weight - average) / count.astype(weight.dtype)
            rate = jnp.where(count == 1, 1, 1 - decay).astype(weight.dtype)
            return average + rate * (weight - average)

        weights = jax.tree.map(
            moved, (self.state.shared, self.state.members), (state.shared, state.members)
        )
        return type(self)(count, _with_weights(state, *weights))


def _with_weights(state: State, shared: Tree, members: Tree) -> State:
    """`state` with other weights; nothing of it is aliased, so that it may be donated."""
    without = state.replace(shared=None, members=None, shared_opt_state=None, member_opt_state=None)
    return jax.tree.map(jnp.copy, without).replace(shared=shared, members=members)


StatisticsFn = Callable[[Tree, Tree, Tree, Any], Tree]


def statistics_step(
    statistics_fn: StatisticsFn, *, member_mode: str = "vmap", member_axis: str | None = None
) -> Callable[..., State]:
    """Builds `step(state, batch, momentum, key=None) -> state`, which re-estimates statistics.

    Every member sees the same `batch`; what it finds enters the model state with `momentum`: 1 for
    the first batch, b / (seen + b) afterwards gives the mean over all that was seen, each batch of
    b examples counting by its size. A shared layer sees a batch once for every member, in turn,
    with the same momentum each time (published code).

    Args:
      statistics_fn: (params, model_state, batch, key) -> model_state of the batch's own statistics,
        plain or in `Observed`: of a clone of the model whose running averages have no memory
        (momentum 0, where the momentum is that of the old state).
      member_mode: as in `cycle.over_members`.
      member_axis: as in `LatePhase`.
    """

    cycle.check_mode(member_mode)

    def of_member(shared, own, shared_state, own_state, batch, key):
        before = trees.join(shared_state, own_state)
        returned = statistics_fn(combine(shared, own), ms.to_be_changed(before), batch, key)
        news, observed = ms.settle(before, returned)
        found = trees.map_places(
            lambda new, seen: ms.Observed(new, 1.0) if seen is None and new is not None else seen,
            news,
            observed,
        )
        # Counters and keys have no mean.
        return trees.map_places(
            lambda old, seen: (
                None if old is None or not jnp.issubdtype(old.dtype, jnp.inexact) else seen
            ),
            before,
            found,
        )

    def step(state: State, batch: Tree, momentum: Any, key: jax.Array | None = None) -> State:
        arguments.check_call("statistics_step", state, key)
        members, num_members = devices.members_here(state.num_members, member_axis)
        keys = None
        if key is not None:
            keys = jax.vmap(lambda k: jax.random.fold_in(key, k))(members)
        axes = (None, 0, None, 0, None, None if keys is None else 0)
        seen = cycle.over_members(of_member, member_mode, in_axes=axes)(
            state.shared,
            state.members,
            state.shared_model_state,
            state.member_model_state,
            batch,
            keys,
        )
        own = trees.keep(state.member_model_state, seen)
        shared = trees.keep(state.shared_model_state, seen)
        shared = devices.of_all_members(shared, members, num_members, member_axis)
        shared = devices.total(shared, member_axis)
        return state.replace(
            shared_model_state=ms.follow_in_turn(state.shared_model_state, shared, momentum),
            member_model_state=ms.follow(state.member_model_state, own, momentum),
        )

    return step
