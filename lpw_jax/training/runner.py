"""Training on devices: an epoch of cycles, and the pass that re-estimates statistics after SWA."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from lpw_jax.data import split_order
from lpw_jax.data.source import Source
from lpw_jax.devices.compilation import Program
from lpw_jax.devices.parallel import AXIS, Devices
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

    States are *placed* on the devices: in layout 'data' every device has all of them, in layout
    'members' (only after the release) members' arrays are [D, K / D, ...], one entry per device.

    Args:
      devices: where to run.
      layout: that of the released state, 'data' or 'members'; the tied one's is always 'data'.
      method: builds the `LatePhase`, given its device axes.
      statistics: builds what `statistics_step` takes, likewise.
      source: of training examples.
      key: for what the network draws in training.
      batch_size: examples in a minibatch.
      num_microbatches: how many a minibatch has; the number of devices divides their size.
      member_mode: as in `cycle.over_members`.
    """

    def __init__(
        self,
        *,
        devices: Devices,
        layout: str,
        method: Callable[..., LatePhase],
        statistics: Callable[..., Callable],
        source: Source,
        key: jax.Array,
        batch_size: int,
        num_microbatches: int,
        member_mode: str,
    ):
        self._devices = devices
        self._released_layout = layout
        self._source, self._batch_size = source, batch_size
        self._num_microbatches = num_microbatches
        key_impl = jax.random.key_impl(key)
        self._resident, self._key = devices.replicate((source.resident, jax.random.key_data(key)))

        def train_program(layout, axes):
            step, member_axis = method(**axis_names(layout)).step, axis_names(layout)["member_axis"]

            def train_cycle(state, resident, feed, key, rates):
                num_here = jax.tree.leaves(feed)[0].shape[0]
                member, _ = members_here(num_here, member_axis)
                with jax.named_scope("augment"):
                    batches = jax.vmap(source.batch, in_axes=(None, 0, 0))(
                        resident, feed, state.step + member
                    )
                key = jax.random.wrap_key_data(key, impl=key_impl)
                return step(state, batches, key, **rate_arguments(rates))

            return devices.lift(
                train_cycle,
                in_axes=(axes, None, 0, None, None),
                out_axes=(axes, None),
                donate_argnums=(0,),
            )

        def statistics_program(layout, batch_axis):
            step = statistics_step(
                statistics(batch_axis),
                member_mode=member_mode,
                member_axis=axis_names(layout)["member_axis"],
            )

            def follow(average, resident, feed, number, key, momentum):
                inputs = source.batch(resident, feed, number)["image"]
                key = jax.random.wrap_key_data(key, impl=key_impl)
                state = step(average.state, inputs, momentum, key)
                return dataclasses.replace(average, state=state)

            axes = Average(None, state_axes(layout))
            return devices.lift(
                follow,
                in_axes=(axes, None, 0, None, None, None),
                out_axes=axes,
                donate_argnums=(0,),
            )

        self._member_distance = {
            "data": Program(jax.jit(member_distance)),
            "members": devices.lift(
                functools.partial(member_distance, axis=AXIS), in_axes=(0,), out_axes=None
            ),
        }
        self._train_cycle = {
            name: Program(train_program(name, state_axes(name))) for name in ("data", "members")
        }
        self._statistics = statistics_program("data", AXIS)
        # Every device sees whole batches: its own members', or a last one too short to divide.
        self._whole_batch_statistics = {
            name: statistics_program(name, None) for name in ("data", "members")
        }

    def place(self, state: State, *, num_members: int) -> State:
        """Puts a host state with [K, ...] arrays on the devices."""
        layout = self._layout(num_members)
        num_devices = self._devices.count

        def put(name, tree):
            if layout == "data" or name not in MEMBER_FIELDS:
                return self._devices.replicate(tree)
            divided = jax.tree.map(
                lambda leaf: np.reshape(leaf, (num_devices, -1, *leaf.shape[1:])), tree
            )
            return self._devices.shard(divided)

        return _map_fields(put, state)

    def place_average(self, average: Average, *, num_members: int) -> Average:
        """Likewise, an average."""
        state = self.place(average.state, num_members=num_members)
        return Average(self._devices.replicate(average.count), state)

    def begin(self, like: State, rates: Rates, *, num_members: int) -> None:
        """Begins to compile what cycles of so many members need, for `place`d states like `like`.

        Examples are in memory. Where devices divide the members, nothing is begun.
        """
        layout = self._layout(num_members)
        if layout == "members":
            return
        whole = self._key.sharding
        state = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=whole), like
        )
        order = np.arange(num_members * self._batch_size)
        (feed,) = self._source.feeds(self._indices(order, num_members), epoch=1)
        feed, rates = self._devices.send(feed), self._devices.replicate(rates)
        self._train_cycle[layout].begin(state, self._resident, feed, self._key, rates)
        if num_members > 1:
            self._member_distance[layout].begin(state.members)

    def fetch(self, state: State, *, num_members: int) -> State:
        """Inverse of `place`: whole host copies, which later cycles do not change."""
        layout = self._layout(num_members)

        def get(name, tree):
            if layout == "data" or name not in MEMBER_FIELDS:
                return jax.tree.map(np.array, tree)
            return jax.tree.map(
                lambda leaf: leaf.reshape(num_members, *leaf.shape[2:]), self._devices.unshard(tree)
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
        layout = self._layout(num_members)
        rates = self._devices.replicate(rates)
        for feed in self._source.feeds(self._indices(order, num_members)[done:], epoch=epoch):
            feed = self._devices.send(feed)
            state, metrics = self._train_cycle[layout](
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
        layout, size, own = self._layout(num_members), self._batch_size, self._devices.own
        last = len(order) // size * size
        whole_batch = self._whole_batch_statistics[layout]

        def on_each(batches):
            return np.repeat(batches[:, None], len(own), axis=1)

        full = order[:last].reshape(-1, size)
        if layout == "data":
            shared_out = full.reshape(len(full), self._devices.count, -1)[:, own]
            passes = [(self._statistics, shared_out)]
        else:
            passes = [(whole_batch, on_each(full))]
        if last < len(order):
            passes.append((whole_batch, on_each(order[None, last:])))
        number = 0
        for program, indices in passes:
            skipped = max(min(done - number, len(indices)), 0)
            number += skipped
            for feed in self._source.feeds(indices[skipped:], epoch=epoch):
                start, end = number * size, min((number + 1) * size, len(order))
                momentum = np.asarray((end - start) / end)
                step, momentum = self._devices.replicate(
                    (np.asarray(first_step + number, np.int32), momentum)
                )
                feed = self._devices.send(feed)
                average = program(average, self._resident, feed, step, self._key, momentum)
                jax.block_until_ready(average)
                number += 1
                yield average

    def member_distance(self, state: State, *, num_members: int) -> float:
        """`spread.member_distance` of a placed state; only a scalar leaves the devices."""
        return float(self._member_distance[self._layout(num_members)](state.members))

    def _indices(self, order: np.ndarray, num_members: int) -> np.ndarray:
        """The examples of every cycle for this host's devices, as sources take them."""
        indices = split_order(
            order,
            num_members=num_members,
            batch_size=self._batch_size,
            num_microbatches=self._num_microbatches,
            num_devices=self._devices.count,
            layout=self._layout(num_members),
        )
        return indices[:, self._devices.own]

    def _layout(self, num_members: int) -> str:
        return self._released_layout if num_members > 1 else "data"


def axis_names(layout: str) -> dict[str, str | None]:
    """The device axes of a `LatePhase` in a layout."""
    by_member = layout == "members"
    return {
        "batch_axis": None if by_member else AXIS,
        "member_axis": AXIS if by_member else None,
    }


def state_axes(layout: str) -> State:
    """pmap axes of a placed state."""
    axis = 0 if layout == "members" else None
    names = [field.name for field in dataclasses.fields(State)]
    return State(**{name: axis if name in MEMBER_FIELDS else None for name in names})


def _map_fields(fn: Callable[[str, Any], Any], state: State) -> State:
    names = [field.name for field in dataclasses.fields(state)]
    return state.replace(**{name: fn(name, getattr(state, name)) for name in names})
