"""Training on devices: an epoch of cycles, and the pass that re-estimates statistics after SWA."""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from flax import linen as nn

from lpw_jax import late_phase as lp
from lpw_jax import step as steps
from lpw_jax.data import in_memory
from lpw_jax.parallel import AXIS, Devices
from lpw_jax.schedules import Rates
from lpw_jax.state import TrainState
from lpw_jax.swa import Averages

# Fields of TrainState and Averages whose leaves are [K, ...].
MEMBER_FIELDS = ("late_phase", "batch_stats", "opt_late")


class Runner:
    """The compiled programs of a run, with the training set on every device.

    States are *placed* on the devices: in layout 'data' every device has all of them, in layout
    'members' (only after the release) late-phase leaves are [D, K / D, ...], one entry per device.

    Args:
      devices: where to run.
      layout: that of the released state, 'data' or 'members'; the tied one's is always 'data'.
      model: network without a device axis.
      tx: from `optimizers.sgd`.
      coasting: as in `late_phase.coasting_steps`.
      member_mode: as in `step.over_members`.
      batch: from `in_memory.make_batch`.
      images: uint8 [N, H, W, C].
      labels: int32 [N].
      batch_size: examples in a minibatch, divisible by the number of devices.
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
        batch: Callable,
        images: np.ndarray,
        labels: np.ndarray,
        batch_size: int,
    ):
        self._devices = devices
        self._released_layout = layout
        self._batch_size = batch_size
        self._data = devices.replicate({"image": images, "label": labels})
        cycle = in_memory.make_cycle(batch)

        def train_program(layout):
            member_axis = AXIS if layout == "members" else None
            train_step = make_train_step(
                layout, model=model, tx=tx, coasting=coasting, member_mode=member_mode
            )

            def train_cycle(state, data, order, first_step, rates):
                member, num_members = lp.member_indices(order.shape[1], member_axis)
                number = (state.step - first_step) // num_members
                with jax.named_scope("augment"):
                    batches = cycle(data, order, number, state.step, member)
                return train_step(state, batches, rates)

            axes = state_axes(TrainState, layout)
            return devices.lift(
                train_cycle,
                in_axes=(axes, None, 0, None, None),
                out_axes=(axes, None),
                donate_argnums=(0,),
            )

        def statistics_program(model, layout):
            step = steps.make_statistics_step(model=model, member_mode=member_mode)

            def statistics(averages, data, index, number, momentum):
                image = batch(data, index, number)["image"]
                batch_stats = step(
                    averages.shared, averages.late_phase, averages.batch_stats, image, momentum
                )
                return averages.replace(batch_stats=batch_stats)

            axes = state_axes(Averages, layout)
            return devices.lift(
                statistics, in_axes=(axes, None, 0, None, None), out_axes=axes, donate_argnums=(0,)
            )

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
        self, state: TrainState, order: np.ndarray, rates: Rates, *, num_members: int, done: int = 0
    ) -> Iterator[tuple[TrainState, dict[str, jax.Array]]]:
        """Trains on the examples of `order` [N], yielding after every cycle; does not wait for it.

        The yielded state is donated to the next cycle; `loss` and `accuracy` [K] are kept. The
        caller bounds how far it runs ahead of the devices.

        Args:
          state: placed, after the first `done` cycles of the epoch.
          num_members: K.
        """
        layout = self._layout(num_members)
        order = in_memory.split_order(
            order,
            num_members=num_members,
            batch_size=self._batch_size,
            num_devices=self._devices.count,
            layout=layout,
        )
        num_cycles = order.shape[1]
        order = self._devices.shard(order)
        first_step = np.asarray(state.step) - np.int32(done * num_members)
        first_step, rates = self._devices.replicate((first_step, rates))
        for _ in range(done, num_cycles):
            state, metrics = self._train_cycle[layout](state, self._data, order, first_step, rates)
            yield state, metrics

    def reestimate_statistics(
        self,
        averages: Averages,
        order: np.ndarray,
        *,
        first_step: int,
        num_members: int,
        done: int = 0,
    ) -> Iterator[Averages]:
        """Cumulative batch-norm statistics of every member over all examples of `order` [N].

        All members see every batch, augmented as training steps `first_step` and on; the last,
        short batch counts by its size (reference, SWA). Yields after every batch but the first
        `done`; `averages` is placed, and donated to the next batch.
        """
        layout, num_devices = self._layout(num_members), self._devices.count
        for start in range(done * self._batch_size, len(order), self._batch_size):
            index = order[start : start + self._batch_size]
            momentum = np.asarray(len(index) / (start + len(index)))
            number = np.asarray(first_step + start // self._batch_size, np.int32)
            if layout == "data" and len(index) == self._batch_size:
                program, index = self._statistics, index.reshape(num_devices, -1)
            else:
                program = self._whole_batch_statistics[layout]
                index = np.tile(index, (num_devices, 1))
            averages = program(
                averages,
                self._data,
                self._devices.shard(index),
                *self._devices.replicate((number, momentum)),
            )
            jax.block_until_ready(averages)
            yield averages

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
