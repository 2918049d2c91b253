"""Training on devices: an epoch of cycles, and the pass that re-estimates statistics after SWA."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from lpw_jax.data import split_order
from lpw_jax.data.source import Source
from lpw_jax.devices import compiling
from lpw_jax.devices.compilation import Program
from lpw_jax.devices.parallel import GROUPS, Devices
from lpw_jax.method.average import Average, statistics_step
from lpw_jax.method.devices import members_here
from lpw_jax.method.late_phase import LatePhase
from lpw_jax.method.spread import member_distance
from lpw_jax.method.state import State
from lpw_jax.recipe import rate_arguments
from lpw_jax.training.schedules import Rates

# Fields of State whose arrays are [K, ...].
MEMBER_FIELDS = ("members", "member_model_state", "member_opt_state")


class Runner:
    """The compiled programs of a run, and its training examples.

    States are *placed* on the devices: every device has all of them, but members' arrays of G
    groups of devices are [G, K / G, ...], one entry per group.

    Args:
      devices: where to run, in the groups of the released state. The tied one's is always one.
      method: builds the `LatePhase`, given its device axes.
      statistics: builds what `statistics_step` takes, likewise.
      source: of training examples.
      key: for what the network draws in training.
      batch_size: examples in a minibatch.
      num_microbatches: how many a minibatch has; the number of devices divides their size.
      member_mode: as in `cycle.over_members`.
      same_minibatch: whether all members of a cycle see one, augmented alike.
    """

    def __init__(
        self,
        *,
        devices: Devices,
        method: Callable[..., LatePhase],
        statistics: Callable[..., Callable],
        source: Source,
        key: jax.Array,
        batch_size: int,
        num_microbatches: int,
        member_mode: str,
        same_minibatch: bool = False,
    ):
        self._devices, self._in_groups = devices.in_groups(1), devices
        self._source, self._batch_size = source, batch_size
        self._num_microbatches, self._same_minibatch = num_microbatches, same_minibatch
        key_impl = jax.random.key_impl(key)
        self._resident, self._key = self._devices.replicate(
            (source.resident, jax.random.key_data(key))
        )

        def train_program(devices):
            step, member_axis = method(**devices.axes).step, devices.axes["member_axis"]
            axes = state_axes(devices)

            def train_cycle(state, resident, feed, key, rates):
                compiling.tracing("members' step" if state.is_released else "training step")
                num_here = jax.tree.leaves(feed)[0].shape[0]
                member, _ = members_here(num_here, member_axis)
                number = state.step + (0 * member if same_minibatch else member)
                with jax.named_scope("augment"):
                    batches = jax.vmap(source.batch, in_axes=(None, 0, 0))(resident, feed, number)
                key = jax.random.wrap_key_data(key, impl=key_impl)
                return step(state, batches, key, **rate_arguments(rates))

            return devices.lift(
                train_cycle,
                in_axes=(axes, None, 0, None, None),
                out_axes=(axes, None),
                donate_argnums=(0,),
            )

        def statistics_program(devices, batch_axis):
            step = statistics_step(
                statistics(batch_axis),
                member_mode=member_mode,
                member_axis=devices.axes["member_axis"],
            )

            def follow(average, resident, feed, number, key, momentum):
                compiling.tracing("averages' statistics")
                inputs = source.batch(resident, feed, number)["image"]
                key = jax.random.wrap_key_data(key, impl=key_impl)
                state = step(average.state, inputs, momentum, key)
                return dataclasses.replace(average, state=state)

            axes = Average(None, state_axes(devices))
            return devices.lift(
                follow,
                in_axes=(axes, None, 0, None, None, None),
                out_axes=axes,
                donate_argnums=(0,),
            )

        def distance_program(devices):
            axis = devices.axes["member_axis"]
            if axis is None:
                return Program(jax.jit(member_distance))
            distance = functools.partial(member_distance, axis=axis)
            return devices.lift(distance, in_axes=(GROUPS,), out_axes=None)

        both = {self._devices, self._in_groups}
        self._member_distance = {each: distance_program(each) for each in both}
        self._train_cycle = {each: Program(train_program(each)) for each in both}
        self._statistics = {
            each: Program(statistics_program(each, each.axes["batch_axis"])) for each in both
        }
        # Of a last batch too short to be shared, every device sees the whole.
        self._whole_batch_statistics = {
            each: Program(statistics_program(each, None)) for each in both
        }

    def place(self, state: State, *, num_members: int) -> State:
        """Puts a host state with [K, ...] arrays on the devices."""
        devices = self._of(num_members)

        def put(name, tree):
            if devices.num_groups == 1 or name not in MEMBER_FIELDS:
                return devices.replicate(tree)
            divided = jax.tree.map(
                lambda leaf: np.reshape(leaf, (devices.num_groups, -1, *leaf.shape[1:])), tree
            )
            return devices.shard(divided, GROUPS)

        return _map_fields(put, state)

    def place_average(self, average: Average, *, num_members: int) -> Average:
        """Likewise, an average."""
        state = self.place(average.state, num_members=num_members)
        return Average(self._devices.replicate(average.count), state)

    def begin(self, like: State, rates: Rates, *, num_members: int) -> None:
        """Begins to compile what cycles of so many members need, for `place`d states like `like`.

        Examples are in memory. Where devices divide the members, nothing is begun.
        """
        devices = self._of(num_members)
        if devices.num_groups > 1:
            return
        whole = self._key.sharding
        state = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), like
        )
        order = np.arange(num_members * self._batch_size)
        (feed,) = self._source.feeds(self._indices(order, num_members)[:1], epoch=1)
        feed, rates = devices.send(feed), devices.replicate(rates)
        self._train_cycle[devices].begin(state, self._resident, feed, self._key, rates)
        if num_members > 1:
            self._member_distance[devices].begin(state.members)

    def fetch(self, state: State, *, num_members: int) -> State:
        """Inverse of `place`: whole host copies, which later cycles do not change."""
        devices = self._of(num_members)

        def get(name, tree):
            if devices.num_groups == 1 or name not in MEMBER_FIELDS:
                return jax.tree.map(np.array, tree)
            return jax.tree.map(
                lambda leaf: leaf.reshape(num_members, *leaf.shape[2:]), devices.unshard(tree)
            )

        return _map_fields(get, state)

    def fetch_average(self, average: Average, *, num_members: int) -> Average:
        """Inverse of `place_average`."""
        state = self.fetch(average.state, num_members=num_members)
        return Average(np.array(average.count), state)

    def cycles(
        self,
        state: State,
        order: np.ndarray,
        rates: Rates,
        *,
        epoch: int,
        num_members: int,
        done: int = 0,
    ) -> Iterator[tuple[State, dict[str, jax.Array]]]:
        """Trains on the examples of `order` [N], yielding after every cycle; does not wait for it.

        The yielded state is donated to the next cycle; `loss` and `accuracy` [K] are kept. The
        caller bounds how far it runs ahead of the devices.

        Args:
          state: placed, after the first `done` cycles of the epoch.
          epoch: for random augmentation.
          num_members: K.

        Raises:
          UserError: an example is damaged.
        """
        devices = self._of(num_members)
        rates = devices.replicate(rates)
        for feed in self._source.feeds(self._indices(order, num_members)[done:], epoch=epoch):
            feed = devices.send(feed)
            state, metrics = self._train_cycle[devices](
                state, self._resident, feed, self._key, rates
            )
            yield state, metrics

    def reestimate_statistics(
        self,
        average: Average,
        order: np.ndarray,
        *,
        epoch: int,
        first_step: int,
        num_members: int,
        done: int = 0,
    ) -> Iterator[Average]:
        """Cumulative batch-norm statistics of every member over all examples of `order` [N].

        All members see every batch, augmented as training steps `first_step` and on; the last,
        short batch counts by its size (reference, SWA). Yields after every batch but the first
        `done`; `average` is placed, and donated to the next batch.
        """
        devices, size = self._of(num_members), self._batch_size
        last = len(order) // size * size

        def shared_out(batches, sharing):
            """Batches [T, B] to [T, own devices, B / sharing], alike for each `sharing` devices."""
            parts = batches.reshape(len(batches), sharing, -1)
            return np.tile(parts, (1, devices.count // sharing, 1))[:, devices.own]

        passes = [
            (self._statistics, shared_out(order[:last].reshape(-1, size), devices.group_size))
        ]
        if last < len(order):
            passes.append((self._whole_batch_statistics, shared_out(order[None, last:], 1)))
        number = 0
        for programs, indices in passes:
            skipped = max(min(done - number, len(indices)), 0)
            number += skipped
            for feed in self._source.feeds(indices[skipped:], epoch=epoch):
                start, end = number * size, min((number + 1) * size, len(order))
                momentum = np.asarray((end - start) / end)
                step, momentum = devices.replicate(
                    (np.asarray(first_step + number, np.int32), momentum)
                )
                feed = devices.send(feed)
                average = programs[devices](
                    average, self._resident, feed, step, self._key, momentum
                )
                jax.block_until_ready(average)
                number += 1
                yield average

    def member_distance(self, state: State, *, num_members: int) -> float:
        """`spread.member_distance` of a placed state; only a scalar leaves the devices."""
        return float(self._member_distance[self._of(num_members)](state.members))

    def _indices(self, order: np.ndarray, num_members: int) -> np.ndarray:
        """The examples of every cycle for this host's devices, as sources take them."""
        devices = self._of(num_members)
        indices = split_order(
            order,
            num_members=num_members,
            batch_size=self._batch_size,
            num_microbatches=self._num_microbatches,
            num_devices=devices.count,
            num_groups=devices.num_groups,
            same_minibatch=self._same_minibatch,
        )
        return indices[:, devices.own]

    def _of(self, num_members: int) -> Devices:
        """The devices, as they share a state of so many members."""
        return self._in_groups if num_members > 1 else self._devices


def state_axes(devices: Devices) -> State:
    """Axes of a placed state, as `Devices.lift` takes them."""
    axis = None if devices.num_groups == 1 else GROUPS
    names = [field.name for field in dataclasses.fields(State)]
    return State(**{name: axis if name in MEMBER_FIELDS else None for name in names})


def _map_fields(fn: Callable[[str, Any], Any], state: State) -> State:
    names = [field.name for field in dataclasses.fields(state)]
    return state.replace(**{name: fn(name, getattr(state, name)) for name in names})
