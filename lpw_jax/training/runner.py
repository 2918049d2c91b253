"""Training on devices: an epoch of cycles, and the pass that re-estimates statistics after SWA."""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from lpw_jax.data import split_order
from lpw_jax.data.source import Source
from lpw_jax.devices.parallel import AXIS, Devices
from lpw_jax.method import late_phase as lp
from lpw_jax.method import step as steps
from lpw_jax.method.schedules import Rates
from lpw_jax.method.state import TrainState
from lpw_jax.method.swa import Averages

# Fields of TrainState and Averages whose leaves are [K, ...].
MEMBER_FIELDS = ("late_phase", "batch_stats", "opt_late")


class Runner:
    """The compiled programs of a run, and its training examples.

    States are *placed* on the devices: in layout 'data' every device has all of them, in layout
    'members' (only after the release) late-phase leaves are [D, K / D, ...], one entry per device.

    Args:
      devices: where to run.
      layout: that of the released state, 'data' or 'members'; the tied one's is always 'data'.
      model: network without a device axis.
      tx: from `optimizers.sgd`.
      coasting: as in `late_phase.coasting_steps`.
      member_mode: as in `step.over_members`.
      source: of training examples.
      batch_size: examples in a minibatch.
      num_microbatches: how many a minibatch has; the number of devices divides their size.
    """

    def __init__(
        self,
        *,
        devices: Devices,
        layout: str,
        model: nn.Module,
        tx: Any,
        coasting: str,
        member_mode: str,
        source: Source,
        batch_size: int,
        num_microbatches: int = 1,
    ):
        self._devices = devices
        self._released_layout = layout
        self._source, self._batch_size = source, batch_size
        self._num_microbatches = num_microbatches
        self._resident = devices.replicate(source.resident)

        def train_program(layout):
            member_axis = AXIS if layout == "members" else None
            train_step = make_train_step(
                layout,
                model=model,
                tx=tx,
                coasting=coasting,
                member_mode=member_mode,
                num_microbatches=num_microbatches,
            )

            def train_cycle(state, resident, feed, rates):
                num_here = jax.tree.leaves(feed)[0].shape[0]
                member, _ = lp.member_indices(num_here, member_axis)
                with jax.named_scope("augment"):
                    batches = jax.vmap(source.batch, in_axes=(None, 0, 0))(
                        resident, feed, state.step + member
                    )
                return train_step(state, batches, rates)

            axes = state_axes(TrainState, layout)
            return devices.lift(
                train_cycle,
                in_axes=(axes, None, 0, None),
                out_axes=(axes, None),
                donate_argnums=(0,),
            )

        def statistics_program(model, layout):
            step = steps.make_statistics_step(model=model, member_mode=member_mode)

            def statistics(averages, resident, feed, number, momentum):
                image = source.batch(resident, feed, number)["image"]
                batch_stats = step(
                    averages.shared, averages.late_phase, averages.batch_stats, image, momentum
                )
                return averages.replace(batch_stats=batch_stats)

            axes = state_axes(Averages, layout)
            return devices.lift(
                statistics, in_axes=(axes, None, 0, None, None), out_axes=axes, donate_argnums=(0,)
            )

        divided = functools.partial(lp.member_distance, axis_name=AXIS)
        self._member_distance = {
            "data": jax.jit(lp.member_distance),
            "members": devices.lift(divided, in_axes=(0,), out_axes=None),
        }
        self._train_cycle = {name: train_program(name) for name in ("data", "members")}
        self._statistics = statistics_program(model.clone(axis_name=AXIS), "data")
        # Every device sees whole batches: its own members', or a last one too short to divide.
        self._whole_batch_statistics = {
            name: statistics_program(model, name) for name in ("data", "members")
        }

    def place(self, state: Any, *, num_members: int) -> Any:
        """Puts a host `TrainState` or `Averages` with [K, ...] leaves on the devices."""
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

    def fetch(self, state: Any, *, num_members: int) -> Any:
        """Inverse of `place`: whole host copies, which later cycles do not change."""
        layout = self._layout(num_members)

        def get(name, tree):
            if layout == "data" or name not in MEMBER_FIELDS:
                return jax.tree.map(np.array, tree)
            return jax.tree.map(
                lambda leaf: leaf.reshape(num_members, *leaf.shape[2:]), self._devices.unshard(tree)
            )

        return _map_fields(get, state)

    def cycles(
        self,
        state: TrainState,
        order: np.ndarray,
        rates: Rates,
        *,
        epoch: int,
        num_members: int,
        done: int = 0,
    ) -> Iterator[tuple[TrainState, dict[str, jax.Array]]]:
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
        indices = split_order(
            order,
            num_members=num_members,
            batch_size=self._batch_size,
            num_microbatches=self._num_microbatches,
            num_devices=self._devices.count,
            layout=layout,
        )
        rates = self._devices.replicate(rates)
        for feed in self._source.feeds(indices[done:, self._devices.own], epoch=epoch):
            feed = self._devices.send(feed)
            state, metrics = self._train_cycle[layout](state, self._resident, feed, rates)
            yield state, metrics

    def reestimate_statistics(
        self,
        averages: Averages,
        order: np.ndarray,
        *,
        epoch: int,
        first_step: int,
        num_members: int,
        done: int = 0,
    ) -> Iterator[Averages]:
        """Cumulative batch-norm statistics of every member over all examples of `order` [N].

        All members see every batch, augmented as training steps `first_step` and on; the last,
        short batch counts by its size (reference, SWA). Yields after every batch but the first
        `done`; `averages` is placed, and donated to the next batch.
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
                averages = program(averages, self._resident, feed, step, momentum)
                jax.block_until_ready(averages)
                number += 1
                yield averages

    def member_distance(self, state: TrainState, *, num_members: int) -> float:
        """`late_phase.member_distance` of a placed state; only a scalar leaves the devices."""
        return float(self._member_distance[self._layout(num_members)](state.late_phase))

    def _layout(self, num_members: int) -> str:
        return self._released_layout if num_members > 1 else "data"


def make_train_step(layout: str, *, model: nn.Module, **settings: Any) -> Callable:
    """`step.make_train_step` with the device axes of a layout; `model` has none."""
    if layout == "members":
        return steps.make_train_step(model=model, member_axis=AXIS, **settings)
    # Batch norm takes its statistics over the whole minibatch, whoever shares it.
    return steps.make_train_step(model=model.clone(axis_name=AXIS), batch_axis=AXIS, **settings)


def state_axes(kind: type, layout: str) -> Any:
    """pmap axes of a placed `TrainState` or `Averages`."""
    axis = 0 if layout == "members" else None
    names = [field.name for field in dataclasses.fields(kind)]
    return kind(**{name: axis if name in MEMBER_FIELDS else None for name in names})


def _map_fields(fn: Callable[[str, Any], Any], state: Any) -> Any:
    names = [field.name for field in dataclasses.fields(state)]
    return state.replace(**{name: fn(name, getattr(state, name)) for name in names})
